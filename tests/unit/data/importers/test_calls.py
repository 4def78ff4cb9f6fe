"""Tool calls and results survive every format: one chat, written in each, comes back unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from offapi.data.importers import importer
from offapi.data.importers.importer import Outcome
from offapi.data.importers.shared.messages import canonical
from offapi.data.importers.shared.reasons import TOOL_INCOMPLETE, Unusable
from offapi.data.traces import Trace

Row = dict[str, Any]

TRICKY = {
    'city "old"': "Zürich\n\\n \u2028 \U0001f327",
    "big": 123456789012345678901234567890,
    "small": -1.5e-300,
    "a.b": {"0": [None, True, {}, []], "message.role": "x"},
    "": "",
}
EXACT = json.dumps(TRICKY, ensure_ascii=False, indent=1)  # spaces and breaks are the model's own
COMPACT = json.dumps(TRICKY, ensure_ascii=False, separators=(",", ":"))
SCHEMA = {"type": "object", "properties": {"big": {"type": "integer", "maximum": 10**15}}}
FUNCTION = {"name": "look", "description": "Look.", "parameters": SCHEMA}
SYSTEM, ASKED, LOOKED, SAID = "Be brief.", "What is there?", '{"there": "a\\u0020b"}', "A b."


def call(id: str, arguments: str) -> Row:
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}}


def chat(arguments: str, thinking: bool = False) -> list[Row]:
    """The chat in OpenAI's shape: two calls at once, their results, the answer."""
    called: Row = {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [call("c1", arguments), call("c2", "{}")],
    }
    if thinking:
        called["reasoning_content"] = "Where?"
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": ASKED},
        called,
        {"role": "tool", "tool_call_id": "c1", "content": LOOKED},
        {"role": "tool", "tool_call_id": "c2", "content": ""},
        {"role": "assistant", "content": SAID},
    ]


TOOLS = [{"type": "function", "function": FUNCTION}]


def openai_ft() -> Row:
    return {"messages": chat(EXACT), "tools": TOOLS}


def openai_pair() -> Row:
    *asked, answer = chat(EXACT)
    request = json.dumps({"messages": asked, "tools": TOOLS})
    return {
        "request": request,
        "response": {"choices": [{"message": answer, "finish_reason": "stop"}]},
    }


def openai_responses() -> Row:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": ASKED}]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Where?"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look."}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": EXACT},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": LOOKED},
        {"type": "function_call_output", "call_id": "c2", "output": ""},
    ]
    answer = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": SAID}],
    }
    tools = [{"type": "function", **FUNCTION}]
    request = {"instructions": SYSTEM, "input": items, "tools": tools}
    return {"request": request, "response": {"status": "completed", "output": [answer]}}


def anthropic() -> Row:
    use = {"type": "tool_use", "name": "look"}
    called = [
        {"type": "thinking", "thinking": "Where?", "signature": "s"},
        {"type": "text", "text": "I "},
        {"type": "text", "text": "look."},
        {**use, "id": "c1", "input": TRICKY},
        {**use, "id": "c2", "input": {}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": LOOKED}]},
        {"type": "tool_result", "tool_use_id": "c2"},
    ]
    messages = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": called},
        {"role": "user", "content": results},
    ]
    tools = [{"name": "look", "description": "Look.", "input_schema": SCHEMA}]
    response = {
        "type": "message",
        "content": [{"type": "text", "text": SAID}],
        "stop_reason": "end_turn",
    }
    return {
        "request": {"system": SYSTEM, "messages": messages, "tools": tools},
        "response": response,
    }


def otel_messages() -> list[Row]:
    called = [
        {"type": "reasoning", "content": "Where?"},
        {"type": "text", "content": "I look."},
        {"type": "tool_call", "id": "c1", "name": "look", "arguments": TRICKY},
        {"type": "tool_call", "id": "c2", "name": "look"},
    ]
    results = [
        {"type": "tool_call_response", "id": "c1", "response": LOOKED},
        {"type": "tool_call_response", "id": "c2", "result": ""},
    ]
    return [
        {"role": "user", "parts": [{"type": "text", "content": ASKED}]},
        {"role": "assistant", "parts": called},
        {"role": "tool", "parts": results},
    ]


def otel() -> Row:
    output = [
        {"role": "assistant", "parts": [{"type": "text", "content": SAID}], "finish_reason": "stop"}
    ]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": SYSTEM}]),
        "gen_ai.input.messages": json.dumps(otel_messages()),
        "gen_ai.output.messages": json.dumps(output),
        "gen_ai.tool.definitions": json.dumps([{"type": "function", **FUNCTION}]),
    }
    listed = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    return {"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "s", "attributes": listed}]}]}]}


def openinference() -> Row:
    flat: Row = {
        "openinference.span.kind": "LLM",
        "llm.tools.0.tool.json_schema": json.dumps(TOOLS[0]),
    }
    *asked, answer = chat(EXACT)
    for name, messages in (("input", asked), ("output", [answer])):
        for i, message in enumerate(messages):
            at = f"llm.{name}_messages.{i}.message"
            flat |= {f"{at}.{key}": value for key, value in message.items() if key != "tool_calls"}
            for j, each in enumerate(message.get("tool_calls", ())):
                below = f"{at}.tool_calls.{j}.tool_call"
                flat[f"{below}.id"] = each["id"]
                flat |= {
                    f"{below}.function.{key}": value for key, value in each["function"].items()
                }
    return {"name": "ChatCompletion", "attributes": flat}


def langfuse() -> Row:
    *asked, answer = chat(EXACT)
    found = {"input": json.dumps({"messages": asked, "tools": TOOLS}), "output": json.dumps(answer)}
    return {"id": "o", "type": "GENERATION", **found}


def litellm() -> Row:
    *asked, answer = chat(EXACT)
    response = {"choices": [{"message": answer, "finish_reason": "stop"}]}
    return {
        "id": "l",
        "call_type": "completion",
        "messages": asked,
        "response": response,
        "model_parameters": {"tools": TOOLS},
    }


def agents_sdk() -> Row:
    pair = openai_responses()
    request, response = (
        pair["request"],
        {**pair["response"], "instructions": SYSTEM, "tools": pair["request"]["tools"]},
    )
    return {"span_data": {"type": "response", "input": request["input"], "response": response}}


def generic() -> Row:
    return {"chat": json.dumps(chat(EXACT)), "tools": TOOLS}


WRITERS: list[tuple[str, Callable[[], Row], str, bool]] = [  # format, writer, arguments, thinking
    ("openai-ft", openai_ft, EXACT, False),
    ("openai", openai_pair, EXACT, False),
    ("openai", openai_responses, EXACT, True),
    ("anthropic", anthropic, COMPACT, True),
    ("otel", otel, COMPACT, True),
    ("openinference", openinference, EXACT, False),
    ("langfuse", langfuse, EXACT, False),
    ("litellm", litellm, EXACT, False),
    ("agents-sdk", agents_sdk, EXACT, True),
    ("generic", generic, EXACT, False),
]


def rows(format: str, record: Row) -> Iterator[Outcome]:
    maps = {"messages": "$.chat", "tools": "$.tools"} if format == "generic" else {}
    return importer.find_importer(format, maps).rows(record)


@pytest.mark.parametrize(
    ("format", "writer", "arguments", "thinking"),
    WRITERS,
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_chat_with_tools_comes_back_the_same(
    format: str, writer: Callable[[], Row], arguments: str, thinking: bool
) -> None:
    (row,) = rows(format, json.loads(json.dumps(writer())))
    assert isinstance(row, Trace), row
    assert list(row.messages) == chat(arguments, thinking)
    assert list(row.tools or ()) == TOOLS
    called = row.messages[2]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(called) == TRICKY


def turns(*said: str) -> list[Row]:
    """Return a chat in short form.

    "u" asks, "a" answers, "+1 2" calls with these ids, "=1" is a result; "+" and "=" have no id.
    """
    made: list[Row] = []
    for each in said:
        ids = each[1:].split() or [""]
        if each[0] == "+":
            made.append(
                {"role": "assistant", "content": None, "tool_calls": [named(id) for id in ids]}
            )
        elif each[0] == "=":
            made.append(
                {"role": "tool", "content": "r", **({"tool_call_id": ids[0]} if ids[0] else {})}
            )
        else:
            made.append({"role": {"u": "user", "a": "assistant"}[each], "content": each})
    return made


def named(id: str) -> Row:
    made = call(id, "{}")
    return made if id else {name: value for name, value in made.items() if name != "id"}


INCOMPLETE = [
    ("u", "+1 2", "=1", "a"),
    ("u", "+1 2", "=1", "u", "a"),
    ("u", "+1", "=9", "a"),
    ("u", "+1 1", "=1", "a"),
    ("u", "+", "+", "=", "a"),
    ("u", "+1", "a"),
    ("u", "+1", "u", "+2"),
    ("u", "+1", "u", "a", "=1", "a"),
    ("u", "+1", "=1", "+2 3", "=3", "+4"),
]
COMPLETE = [
    ("u", "+1 2", "=2", "=1", "a"),
    ("u", "+1", "=1", "u", "+1", "=1", "a"),
    ("u", "+1", "=", "a"),
    ("u", "+", "=1", "a"),
    ("u", "+1", "u", "=1", "u", "a"),
    ("u", "+1", "a", "=1", "a"),  # one turn in two messages, as the Responses API has it
    ("u", "=1", "a"),
    ("u", "+1", "=1", "+2 3"),
    ("u", "+1 2"),
]


@pytest.mark.parametrize("said", INCOMPLETE, ids=" ".join)
def test_an_earlier_call_without_its_result_is_dropped(said: tuple[str, ...]) -> None:
    *asked, answer = turns(*said)
    pair = {"request": {"messages": asked}, "response": {"choices": [{"message": answer}]}}
    for format, record in (("openai-ft", {"messages": turns(*said)}), ("openai", pair)):
        assert list(rows(format, record)) == [TOOL_INCOMPLETE]


@pytest.mark.parametrize("said", COMPLETE, ids=" ".join)
def test_a_chat_may_end_in_calls_with_results_in_any_order(said: tuple[str, ...]) -> None:
    (row,) = rows("openai-ft", {"messages": turns(*said)})
    assert isinstance(row, Trace)
    assert list(row.messages) == turns(*said)


def test_an_answer_with_call_and_text_awaits_the_result() -> None:
    text = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "t"}],
    }
    output = [
        text,
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        text,
    ]
    (row,) = rows(
        "openai", {"request": {"input": "u"}, "response": {"status": "completed", "output": output}}
    )
    assert isinstance(row, Trace)
    assert [bool(message.get("tool_calls")) for message in row.messages] == [False, True, False]


@pytest.mark.parametrize(
    "results", [[{"type": "tool_result", "tool_use_id": "c", "content": "x", "is_error": True}]]
)
def test_a_failed_tool_and_texts_around_results_stay_in_place(results: list[Row]) -> None:
    content = [
        {"type": "text", "text": "a"},
        *results,
        {"type": "text", "text": "b"},
        {"type": "text", "text": "c"},
    ]
    assert canonical([{"role": "user", "content": content}]) == [
        {"role": "user", "content": "a"},
        {"role": "tool", "tool_call_id": "c", "content": "x", "is_error": True},
        {"role": "user", "content": "b\nc"},
    ]


BAD: list[tuple[Row, str]] = [
    ({"role": "assistant", "tool_calls": "x"}, "a tool call has no name"),
    (
        {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]},
        "a tool call has no name",
    ),
    (
        {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "a"}}]},
        "uses a tool of the provider",
    ),
    (
        {"role": "assistant", "content": [{"type": "tool_result", "content": ""}]},
        "uses a tool of the provider",
    ),
    (
        {"role": "user", "content": [{"type": "tool_use", "name": "a", "input": {}}]},
        "a message is not",
    ),
    ({"role": "user", "content": {"a": 1}}, "a message is not"),
    ({"role": "user", "content": 5}, "a message is not"),
    ({"role": "user", "content": [5]}, "a message is not"),
    ({"role": "user", "content": [{"type": "text", "text": 5}]}, "a message is not"),
    ({"role": "user", "content": [{"type": "hologram"}]}, "content of an unknown kind"),
    ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "holds audio"),
    (
        {"role": "user", "content": [{"type": "blob", "modality": "image", "content": "aGk="}]},
        "holds an image",
    ),
    ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, "holds a file"),
    ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "holds audio"),
    ({"role": "narrator", "content": "x"}, "role is unknown"),
    ({"content": "x"}, "role is unknown"),
    ({"role": "assistant", "content": "x", "weight": 0.5}, "a weight is not 0 or 1"),
    ({"role": "assistant", "content": "x", "weight": True}, "a weight is not 0 or 1"),
]


@pytest.mark.parametrize(("message", "said"), BAD)
def test_a_message_that_cannot_be_learned_from_says_why(message: Row, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        canonical([message])
