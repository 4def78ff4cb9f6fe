"""What was asked and answered is read alike wherever it lies, and JSON of the user's own stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from imported_row import (
    ANSWER,
    ASKED,
    FOUND,
    SAID,
    USER,
    Row,
    question_and_answer,
    read_row,
    serialized,
    why_dropped,
)

GIVEN = {"input": "$.i", "output": "$.o"}
BLOCK = {"type": "text", "text": ANSWER}
ITEM = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": ANSWER}],
}
GEMINI = {"role": "model", "parts": [{"text": ANSWER}]}
CONVERSE = {"message": {"role": "assistant", "content": [{"text": ANSWER}]}}
SERIALIZED = serialized("AIMessage", ANSWER, type="ai")
PLAIN = {"type": "ai", "content": ANSWER, "additional_kwargs": {}, "response_metadata": {}}
ANSWERS: dict[str, Any] = {
    "text": ANSWER,
    "object": json.loads(ANSWER),
    "message": SAID,
    "messages": [SAID],
    "messages as text": json.dumps([SAID]),
    "messages in an object": {"messages": [SAID]},
    "history before it": [USER, SAID],
    "block": BLOCK,
    "blocks": [BLOCK],
    "thinking and a block": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, BLOCK],
    "item": [ITEM],
    "response": FOUND,
    "choices": FOUND["choices"],
    "choice's message": {"message": SAID, "usage": {}},
    "serialized": SERIALIZED,
    "serialized list": [[SERIALIZED]],
    "with data": {"type": "ai", "data": {"content": ANSWER, "additional_kwargs": {}}},
    "LangChain's": PLAIN,
    "generations": {"generations": [[{"text": ANSWER, "message": SERIALIZED}]]},
    "Messages API": {"type": "message", "role": "assistant", "content": [BLOCK]},
    "Gemini's": {"candidates": [{"content": GEMINI, "finishReason": "STOP"}]},
    "Gemini's message": GEMINI,
    "Converse's": {"output": CONVERSE, "stopReason": "end_turn"},
    "Ollama's": {"model": "m", "message": SAID, "done": True, "done_reason": "stop"},
    "under another name": {"output": SAID},
}
QUESTIONS: dict[str, Any] = {
    "text": ASKED,
    "messages": [USER],
    "message": USER,
    "as text": json.dumps([USER]),
    "request": {"model": "m", "messages": [USER]},
    "serialized": [[serialized("HumanMessage", ASKED, type="human")]],
    "ShareGPT's": [{"from": "human", "value": ASKED}],
    "contents": {"contents": [{"role": "user", "parts": [{"text": ASKED}]}]},
    "blocks": [{"type": "text", "text": ASKED}],
    "prompt": {"model": "m", "prompt": ASKED},
}


@pytest.mark.parametrize("shape", ANSWERS)
@pytest.mark.parametrize("format", ["generic", "langfuse"])
def test_an_answer_is_read_in_every_shape(format: str, shape: str) -> None:
    record: Row = {"type": "GENERATION", "input": [USER], "output": ANSWERS[shape]}
    maps = {"input": "$.input", "output": "$.output"} if format == "generic" else {}
    assert question_and_answer(format, record, **maps) == (ASKED, ANSWER)


@pytest.mark.parametrize("shape", QUESTIONS)
def test_a_question_is_read_in_every_shape(shape: str) -> None:
    record = {"i": QUESTIONS[shape], "o": SAID}
    assert question_and_answer("generic", record, **GIVEN) == (ASKED, ANSWER)


OWN: list[Any] = [
    {"role": "CFO", "company": "Foo Ltd"},
    {"role": "user", "name": "Bo"},
    [{"role": "CFO", "name": "A"}, {"role": "CEO", "name": "B"}],
    [{"role": "assistant", "name": "A"}, {"role": "tool", "name": "B"}],
    {"question": "Which leaf?", "choices": ["a", "b"]},
    {"choices": [{"label": "a"}]},
    {"output": [{"item": "x"}]},
    {"messages": ["a", "b"]},
    {"message": "hello"},
    {"content": "b"},
    {"error": "not found"},
    {"parts": [{"text": "bolt"}]},
    {"type": "text", "content": "x", "amount": 1},
    {"type": "message", "content": "x"},
    [{"text": "bolt"}, {"text": "nut"}],
]


@pytest.mark.parametrize("answer", OWN, ids=json.dumps)
@pytest.mark.parametrize("as_text", [False, True])
def test_an_answer_of_the_users_own_json_stays_whole(answer: Any, as_text: bool) -> None:
    given = json.dumps(answer) if as_text else answer
    asked: Row = {"type": "GENERATION", "input": [USER], "output": given}
    for format, maps in (("langfuse", {}), ("generic", {"input": "$.input", "output": "$.output"})):
        _, read = question_and_answer(format, asked, **maps)
        assert json.loads(read) == answer
        assert read == given or not as_text


def test_a_text_answer_of_litellm_that_is_json_stays_a_text() -> None:
    record = {"id": "x", "call_type": "acompletion", "messages": [USER], "response": ANSWER}
    assert question_and_answer("litellm", record) == (ASKED, ANSWER)
    as_text = {**record, "response": json.dumps(FOUND)}
    assert question_and_answer("litellm", as_text) == (ASKED, ANSWER)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({**SAID, "confidence": 0.9}, "confidence"),
        ([SAID, {"total": 1}], "mixed with other values"),
        ([{"lc": 1, "type": "constructor", "id": ["Document"], "kwargs": {}}], "serialized object"),
    ],
)
def test_what_looks_like_a_message_is_never_text(answer: Any, said: str) -> None:
    found = why_dropped("generic", {"i": ASKED, "o": answer}, **GIVEN)
    assert "looks like a message" in found.reason
    assert said in found.detail


def test_an_answer_with_others_messages_is_not_one_answer() -> None:
    found = why_dropped("generic", {"i": [USER], "o": [{**USER, "content": "b"}, SAID]}, **GIVEN)
    assert "other messages than the model's" in found.reason


def test_a_call_in_an_answer_stays_a_call() -> None:
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ANSWER}}
    row = read_row("generic", {"i": ASKED, "o": {"tool_calls": [called]}}, **GIVEN)
    assert row["messages"][-1]["tool_calls"] == [called]


TEXTS = [
    (["Reading.", ANSWER], f"Reading.\n{ANSWER}"),
    (["I ", "look."], "I look."),
    ([ANSWER[:12], ANSWER[12:]], ANSWER),  # JSON that only both make
]


@pytest.mark.parametrize(("texts", "answer"), TEXTS)
def test_text_blocks_do_not_run_together(texts: list[str], answer: str) -> None:
    content = [{"type": "text", "text": text} for text in texts]
    record = {"messages": [USER, {"role": "assistant", "content": content}]}
    assert question_and_answer("openai-ft", record) == (ASKED, answer)


def test_text_that_citations_cut_apart_is_one_sentence() -> None:
    blocks = [
        {"type": "text", "text": "The sum is 5"},
        {"type": "text", "text": ", as stated", "citations": [{"cited_text": "5"}]},
        {"type": "text", "text": "."},
    ]
    response = {"type": "message", "role": "assistant", "content": blocks}
    record = {"request": {"messages": [USER]}, "response": response}
    assert question_and_answer("anthropic", record) == (ASKED, "The sum is 5, as stated.")


def test_a_begun_answer_is_continued_without_a_break() -> None:
    request = {"messages": [USER, {"role": "assistant", "content": '{"vendor":"Fo'}]}
    block = {"type": "text", "text": 'o Ltd","total":12.5}'}
    response = {"type": "message", "role": "assistant", "content": [block]}
    record = {"request": request, "response": response}
    assert question_and_answer("anthropic", record) == (ASKED, ANSWER)


def test_commentary_before_the_final_answer_is_left_out() -> None:
    remark = {"type": "text", "text": "Reading.", "phase": "commentary"}
    blocks = [remark, {**BLOCK, "phase": "final_answer"}]
    observed = {"type": "GENERATION", "input": [USER], "output": {**SAID, "content": blocks}}
    assert question_and_answer("langfuse", observed) == (ASKED, ANSWER)
    items = [
        {**ITEM, "phase": "commentary", "content": [remark]},
        {**ITEM, "phase": "final_answer"},
    ]
    response = {"status": "completed", "output": items}
    row = read_row("openai", {"request": {"input": ASKED}, "response": response})
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert row["messages"][-1]["content"] == ANSWER
