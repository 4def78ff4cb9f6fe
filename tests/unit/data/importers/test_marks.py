"""A logger's marks in place of content are reasons in every format; what a document says is not."""

from __future__ import annotations

from typing import Any

import pytest
from imported_row import ANSWER, FOUND, SAID, USER, Row, question_and_answer, read_row, why_dropped

SHORTENED = "content was redacted or shortened when it was logged"
MASKS = [
    "<redacted>",
    "[REDACTED]",
    "REDACTED",
    "__REDACTED__",
    "redacted-by-litellm",
    "default-message-value",
    "<elided>",
    "[Filtered]",
    "[content redacted by policy]",
    "***",
    "████",
    "[Scrubbed due to 'password']",
    "[This value has been dropped because this span's size exceeds the 1MB size limit.]",
    "Foo ... (litellm_truncated skipped 2000 chars) ... Ltd",
    "Foo Ltd ...<truncated due to size exceeding limit>",
    "Foo Ltd ...[truncated 2,000 characters]",
    "Foo Ltd … (truncated)",
    "Foo Ltd\n...[truncated]...",
]
KEPT = [
    "Foo Ltd [truncated] Total 12.50",
    "The document is redacted.",
    "[Redacted] paid 12.50",
    "IBAN XXXXXXXX1234",
    "hidden",
    "[Name]",
    '{"redacted": true}',
    "Card ***1234",
]


def with_question(format: str, text: str) -> Row:
    """Return a record of a format in which `text` was asked."""
    user = {"role": "user", "content": text}
    pair = {"request": {"messages": [user]}, "response": FOUND}
    shapes: dict[str, Row] = {
        "openai-ft": {"messages": [user, SAID]},
        "openai": pair,
        "langfuse": {"type": "GENERATION", "input": [user], "output": ANSWER},
        "litellm": {"call_type": "completion", "messages": [user], "response": FOUND},
        "langsmith": {"run_type": "llm", "inputs": {"messages": [user]}, "outputs": FOUND},
        "otel": {
            "attributes": {
                "gen_ai.operation.name": "chat",
                "gen_ai.input.messages": [user],
                "gen_ai.output.messages": [SAID],
            }
        },
    }
    return shapes[format]


@pytest.mark.parametrize("text", MASKS)
@pytest.mark.parametrize("format", ["openai-ft", "openai", "langfuse", "litellm", "otel"])
def test_a_mask_is_no_question_in_any_format(format: str, text: str) -> None:
    assert why_dropped(format, with_question(format, text)).reason == SHORTENED


@pytest.mark.parametrize("text", KEPT)
@pytest.mark.parametrize("format", ["openai-ft", "langsmith"])
def test_a_text_that_only_resembles_a_mark_is_kept(format: str, text: str) -> None:
    assert question_and_answer(format, with_question(format, text)) == (text, ANSWER)


@pytest.mark.parametrize("answer", ["[REDACTED]", '{"vendor":"<redacted>"}', '{"vendor":"***"}'])
def test_a_masked_answer_is_dropped(answer: str) -> None:
    record = {"messages": [USER, {"role": "assistant", "content": answer}]}
    assert why_dropped("openai-ft", record).reason == SHORTENED


def test_a_mask_that_the_document_holds_is_its_text() -> None:
    asked = {"role": "user", "content": "Name: [REDACTED], total 12.50"}
    answer = '{"name":"[REDACTED]"}'
    record = {"messages": [asked, {"role": "assistant", "content": answer}]}
    assert question_and_answer("openai-ft", record)[1] == answer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@@@langfuseMedia:type=application/pdf|id=x|source=bytes@@@", "not text"),
        ("See @@@langfuseMedia:type=image/png|id=x|source=base64@@@", "an image"),
        ("data:image/png;base64,iVBORw0KGgo=", "an image"),
        ("data:application/pdf;base64,JVBERi0=", "not text"),
    ],
)
@pytest.mark.parametrize("format", ["langfuse", "openai"])
def test_a_reference_to_media_is_no_text(format: str, text: str, said: str) -> None:
    assert said in why_dropped(format, with_question(format, text)).reason


BLANK: list[list[Row]] = [
    [{"role": "user", "content": ""}],
    [{"role": "system", "content": "Extract."}, {"role": "user", "content": " \n"}],
    [USER, SAID, {"role": "user", "content": ""}],
    [{"role": "system", "content": ""}],
]


@pytest.mark.parametrize("asked", BLANK)
def test_an_empty_prompt_asks_nothing(asked: list[Row]) -> None:
    found = why_dropped("openai-ft", {"messages": [*asked, SAID]})
    assert found.reason == "an empty prompt: nothing was asked"


@pytest.mark.parametrize(
    "asked",
    [
        [USER, {"role": "user", "content": ""}],
        [{"role": "system", "content": "Extract: Foo Ltd."}],
        [USER, {"role": "assistant", "content": "Let me look."}],
    ],
)
def test_a_prompt_with_some_text_asks_something(asked: list[Row]) -> None:
    assert read_row("openai-ft", {"messages": [*asked, SAID]})["messages"][-1] == SAID


CALL = {"gen_ai.operation.name": "chat"}
NUMBERED = {
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": "a",
    "gen_ai.completion.0.content": ANSWER,
}
EVENTS: list[Row] = [
    {"name": "gen_ai.user.message", "attributes": {"content": "a"}},
    {"name": "gen_ai.choice", "attributes": {"message": SAID}},
]
LOST: list[tuple[Row, str]] = [
    ({"attributes": CALL | NUMBERED, "droppedAttributesCount": 4}, "parts of it were dropped"),
    ({"attributes": CALL | NUMBERED, "dropped_attributes_count": "4"}, "parts of it were dropped"),
    ({"attributes": CALL, "events": EVENTS, "droppedEventsCount": 1}, "parts of it were dropped"),
    (
        {"attributes": CALL, "events": [EVENTS[0] | {"droppedAttributesCount": 1}, EVENTS[1]]},
        "parts of it were dropped",
    ),
    ({"attributes": CALL | NUMBERED | {"gen_ai.prompt.2.content": "c"}}, "numbered messages"),
]


@pytest.mark.parametrize(("span", "said"), LOST)
def test_a_span_that_lacks_parts_says_so(span: Row, said: str) -> None:
    found = why_dropped("otel", span)
    assert said in found.reason
    assert "COUNT_LIMIT" in found.hint


def test_a_span_that_lost_nothing_is_read() -> None:
    span: dict[str, Any] = {"attributes": CALL, "events": EVENTS, "droppedEventsCount": 0}
    assert question_and_answer("otel", span) == ("a", ANSWER)


def test_a_gap_in_openinferences_messages_is_a_reason() -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "a",
        "llm.output_messages.0.message.content": ANSWER,
    }
    found = why_dropped("openinference", {"attributes": attributes})
    assert found.reason == "one of its numbered messages or parts is missing"
