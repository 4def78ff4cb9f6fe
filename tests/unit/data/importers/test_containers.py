"""Exports that keep spans or calls one level deeper, and spans in the names of other libraries.

Shapes: the projects' own documentation and sources; contents are made up.
"""

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
    read_rows,
    serialized,
    why_dropped,
)

from offapi.data.importers.importer import FORMATS

PARTS = [{"role": "user", "parts": [{"type": "text", "content": ASKED}]}]
SAID_PARTS = [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}]}]
CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
LISTS = {
    "gen_ai.input.messages": json.dumps(PARTS),
    "gen_ai.output.messages": json.dumps(SAID_PARTS),
}
WHOLE = CALL | LISTS
TYPED = [{"key": key, "value": {"stringValue": value}} for key, value in WHOLE.items()]
TAGS = [{"key": key, "type": "string", "value": value} for key, value in WHOLE.items()]
OTLP = {"traceId": "t", "spanId": "s", "name": "chat", "attributes": TYPED}
FLAT = {"name": "chat m", "context": {"trace_id": "t", "span_id": "s"}, "attributes": WHOLE}
JAEGER = {"traceID": "t", "spanID": "s", "operationName": "chat", "tags": TAGS, "logs": []}
NESTED = {
    "operation": {"name": "chat"},
    "input": {"messages": LISTS["gen_ai.input.messages"]},
    "output": {"messages": LISTS["gen_ai.output.messages"]},
}
MLFLOW = {
    "mlflow.spanType": '"CHAT_MODEL"',
    "mlflow.spanInputs": json.dumps({"model": "m", "messages": [USER]}),
    "mlflow.spanOutputs": json.dumps(FOUND),
}
SPANS: dict[str, Row] = {
    "Tempo": {"batches": [{"resource": {}, "scopeSpans": [{"spans": [OTLP]}]}]},
    "Tempo, older": {"batches": [{"instrumentationLibrarySpans": [{"spans": [OTLP]}]}]},
    "Tempo's second API": {"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [OTLP]}]}]}},
    "a list of spans": {"spans": [FLAT]},
    "traces with spans": {"traces": [{"spans": [FLAT]}]},
    "Jaeger": {"data": [{"traceID": "t", "spans": [JAEGER], "processes": {}}], "total": 0},
    "Zipkin": {"traceId": "t", "id": "s", "name": "chat", "tags": WHOLE},
    "Elasticsearch": {"_index": "x", "_source": {"span": {"id": "s"}, "attributes": WHOLE}},
    "a search's hits": {"hits": {"total": 1, "hits": [{"_source": {"attributes": WHOLE}}]}},
    "nested by a document store": {"_source": {"attributes": {"gen_ai": NESTED}}},
    "its columns": {"_source": {f"Attributes.{key}": value for key, value in WHOLE.items()}},
    "OpenSearch": {
        "_source": {f"span.attributes.{k.replace('.', '@')}": v for k, v in WHOLE.items()}
    },
    "ClickHouse": {"SpanId": "s", "SpanName": "chat", "SpanAttributes": WHOLE, "StatusCode": "Ok"},
    "MLflow": {"info": {"trace_id": "t"}, "data": {"spans": [{"attributes": MLFLOW}]}},
}


@pytest.mark.parametrize("export", SPANS)
def test_an_export_is_opened(export: str) -> None:
    assert question_and_answer("otel", SPANS[export]) == (ASKED, ANSWER)


def test_zipkin_lists_of_lists_are_opened() -> None:
    assert len(read_rows("otel", [SPANS["Zipkin"], SPANS["Zipkin"]])) == 2


def test_a_jaeger_span_keeps_its_id_time_and_events() -> None:
    fields = [{"key": "event", "value": "gen_ai.user.message"}, {"key": "content", "value": ASKED}]
    said = [{"key": "event", "value": "gen_ai.choice"}, {"key": "message", "value": ANSWER}]
    tags = [{"key": key, "value": value} for key, value in CALL.items()]
    logs = [{"timestamp": 1, "fields": fields}, {"timestamp": 2, "fields": said}]
    span = JAEGER | {"tags": tags, "logs": logs, "startTime": 1_700_000_000_000_000}
    row = read_row("otel", {"data": [{"spans": [span]}]})
    assert (row["id"], row["group"], row["source"]["ts"][:4]) == ("s", "t", "2023")
    assert row["messages"][-1]["content"] == ANSWER
    failed = {**span, "tags": [*tags, {"key": "error", "type": "bool", "value": True}]}
    assert why_dropped("otel", {"data": [{"spans": [failed]}]}).reason == "the call failed"


SERIALIZED = {"messages": [[serialized("HumanMessage", ASKED)]]}
GENERATED = {"generations": [[{"text": ANSWER, "message": serialized("AIMessage", ANSWER)}]]}
VERCEL = {"ai.operationId": "ai.generateText.doGenerate", "ai.model.id": "m"}
VERCEL_ASKED = json.dumps([{"role": "user", "content": [{"type": "text", "text": ASKED}]}])
LOGFIRE = {"gen_ai.system": "openai", "request_data": json.dumps({"messages": [USER]})}
EVENTS = [
    {"event.name": "gen_ai.user.message", "role": "user", "content": ASKED},
    {"event.name": "gen_ai.choice", "index": 0, "message": SAID},
]
SHAPES: dict[str, Row] = {
    "LangSmith's objects": CALL
    | {"gen_ai.prompt": json.dumps({"messages": [USER]}), "gen_ai.completion": json.dumps(FOUND)},
    "LangSmith, serialized": CALL
    | {"gen_ai.prompt": json.dumps(SERIALIZED), "gen_ai.completion": json.dumps(GENERATED)},
    "LangSmith's wrappers": {
        "langsmith.span.kind": "llm",
        "gen_ai.prompt": json.dumps({"input": ASKED}),
        "gen_ai.completion": json.dumps({"output": ANSWER}),
    },
    "plain texts": CALL | {"gen_ai.prompt": ASKED, "gen_ai.completion": ANSWER},
    "Vercel AI SDK": VERCEL | {"ai.prompt.messages": VERCEL_ASKED, "ai.response.text": ANSWER},
    "Vercel, older": VERCEL | {"ai.prompt.messages": VERCEL_ASKED, "ai.result.text": ANSWER},
    "Vercel's objects": {
        "ai.operationId": "ai.generateObject",
        "ai.prompt": json.dumps({"prompt": ASKED}),
        "ai.response.object": ANSWER,
    },
    "Logfire": LOGFIRE | {"response_data": json.dumps({"message": SAID, "usage": {}})},
    "Logfire, streamed": LOGFIRE
    | {"response_data": json.dumps({"combined_chunk_content": ANSWER, "chunk_count": 3})},
    "Pydantic AI": CALL | {"events": json.dumps(EVENTS)},
    "Traceloop's blocks": CALL
    | {
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": json.dumps([{"type": "text", "text": ASKED}]),
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": ANSWER,
    },
    "Langfuse": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.input": json.dumps([USER]),
        "langfuse.observation.output": json.dumps(SAID),
    },
}


@pytest.mark.parametrize("library", SHAPES)
def test_a_span_is_read_in_the_names_of_a_library(library: str) -> None:
    assert question_and_answer("otel", {"attributes": SHAPES[library]}) == (ASKED, ANSWER)


def event(name: str, **attributes: str) -> Row:
    return {"name": f"gen_ai.{name}", "attributes": attributes}


def test_blocks_and_tools_of_strands_are_read() -> None:
    used = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"a": 1}}}
    result = {"toolUseId": "t1", "status": "success", "content": [{"text": "r"}]}
    events = [
        event("user.message", content=json.dumps([{"text": ASKED}])),
        event("assistant.message", content=json.dumps([used])),
        event("tool.message", content=json.dumps([{"toolResult": result}])),
        event("choice", message=json.dumps([{"text": ANSWER}]), finish_reason="end_turn"),
    ]
    row = read_row("otel", {"attributes": CALL, "events": events})
    assert [message["role"] for message in row["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert row["messages"][2] == {"role": "tool", "tool_call_id": "t1", "content": "r"}
    assert row["messages"][-1]["content"] == ANSWER


def test_calls_of_the_vercel_ai_sdk_are_read() -> None:
    called = [{"toolCallId": "c1", "toolName": "look", "args": {"a": 1}}]
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    attributes = VERCEL | {
        "ai.prompt.messages": VERCEL_ASKED,
        "ai.response.toolCalls": json.dumps(called),
        "ai.response.finishReason": "tool-calls",
        "ai.prompt.tools": [json.dumps(tool)],
    }
    row = read_row("otel", {"attributes": attributes})
    (call,) = row["messages"][-1]["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": '{"a":1}'}
    assert row["tools"][0]["function"]["name"] == "look"
    cut = attributes | {"ai.response.finishReason": "length"}
    assert why_dropped("otel", {"attributes": cut}).reason == "cut off at the token limit"


def test_an_outer_span_of_the_vercel_ai_sdk_names_its_calls() -> None:
    outer = {"ai.operationId": "ai.generateText", "ai.prompt": "{}", "ai.response.text": ANSWER}
    found = why_dropped("otel", {"attributes": outer})
    assert ".doGenerate" in found.hint
    assert "--map" in found.hint


RAW: dict[str, tuple[Any, Any]] = {
    "texts": (ASKED, ANSWER),
    "messages": (json.dumps([USER]), json.dumps(SAID)),
    "Messages API": (
        json.dumps({"messages": [USER]}),
        json.dumps({"type": "message", "role": "assistant", "content": [{"type": "text", "text": ANSWER}]}),
    ),
    "Gemini's": (
        json.dumps({"contents": [{"role": "user", "parts": [{"text": ASKED}]}]}),
        json.dumps({"candidates": [{"content": {"parts": [{"text": ANSWER}]}}]}),
    ),
    "LangChain's": (json.dumps(SERIALIZED), json.dumps(GENERATED)),
}  # fmt: skip


@pytest.mark.parametrize("shape", RAW)
def test_openinferences_raw_values_are_read(shape: str) -> None:
    asked, said = RAW[shape]
    attributes = {"openinference.span.kind": "LLM", "input.value": asked, "output.value": said}
    assert question_and_answer("openinference", {"attributes": attributes}) == (ASKED, ANSWER)


@pytest.mark.parametrize("as_text", [False, True])
def test_openinferences_columns_hold_lists_or_their_text(as_text: bool) -> None:
    asked: Any = [{"message.role": "user", "message.content": ASKED}]
    said: Any = [{"message.role": "assistant", "message.content": ANSWER}]
    record = {
        "attributes.openinference.span.kind": "LLM",
        "attributes.llm.input_messages": json.dumps(asked) if as_text else asked,
        "attributes.llm.output_messages": json.dumps(said) if as_text else said,
    }
    assert question_and_answer("openinference", record) == (ASKED, ANSWER)


LINE = "Filler line.\n" * 20
CUT: dict[str, tuple[str, Row]] = {
    "question": ("otel", WHOLE | {"gen_ai.input.messages": LISTS["gen_ai.input.messages"][:60]}),
    "answer": ("otel", WHOLE | {"gen_ai.output.messages": LISTS["gen_ai.output.messages"][:60]}),
    "request": ("otel", LOGFIRE | {"request_data": '{"messages": [{"role": "us'}),
    "Vercel's": ("otel", VERCEL | {"ai.prompt.messages": VERCEL_ASKED[:40], "ai.response.text": "a"}),
    "two plain texts": (
        "otel",
        CALL
        | {
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": f"Extract. {LINE}"[:128],
            "gen_ai.prompt.1.role": "user",
            "gen_ai.prompt.1.content": f"Foo Ltd. {LINE}"[:128],
            "gen_ai.completion.0.content": ANSWER,
        },
    ),
    "raw value": (
        "openinference",
        {"openinference.span.kind": "LLM", "input.value": '[{"role": "user"', "output.value": "a"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CUT)
def test_a_value_cut_by_a_limit_names_the_limit(what: str) -> None:
    format, attributes = CUT[what]
    found = why_dropped(format, {"attributes": attributes})
    assert found.reason == "cut short by a length limit when it was recorded"
    assert "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT" in found.hint


def test_two_texts_of_one_length_that_is_not_round_are_whole() -> None:
    texts = {f"gen_ai.prompt.{i}.content": f"{name} {LINE}"[:131] for i, name in enumerate("ab")}
    roles = {"gen_ai.prompt.0.role": "system", "gen_ai.prompt.1.role": "user"}
    said = {"gen_ai.completion.0.content": ANSWER}
    assert read_row("otel", {"attributes": CALL | roles | texts | said})["messages"]


def test_content_in_an_unknown_attribute_is_not_said_to_be_lost() -> None:
    attributes = CALL | {"acme.prompt.text": "Extract the vendor.", "acme.output": ANSWER}
    found = why_dropped("otel", {"attributes": attributes})
    assert found.reason == "recorded in a shape that this format does not read"
    assert "acme.prompt.text, acme.output" in found.hint
    assert "--map" in found.hint
    assert why_dropped("otel", {"attributes": CALL}).reason == "a span without messages"


BEDROCK = {
    "schemaType": "ModelInvocationLog",
    "input": {"inputBodyJson": {"anthropic_version": "x", "messages": [USER]}},
    "output": {
        "outputBodyJson": {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": ANSWER}],
        }
    },
}
CONVERSED = {
    **BEDROCK,
    "operation": "Converse",
    "input": {"inputBodyJson": {"messages": [{"role": "user", "content": [{"text": ASKED}]}]}},
    "output": {
        "outputBodyJson": {
            "output": {"message": {"role": "assistant", "content": [{"text": ANSWER}]}},
            "stopReason": "end_turn",
        }
    },
}
WEAVE = {
    "id": "w",
    "op_name": "weave:///e/p/op/openai.chat.completions.create:x",
    "inputs": {"model": "m", "messages": [USER]},
    "output": FOUND,
}
LANGSMITH = {"run_type": "llm", "inputs": SERIALIZED, "outputs": GENERATED}
GEMINI = {
    "request": {"contents": [{"role": "user", "parts": [{"text": ASKED}]}]},
    "response": {"candidates": [{"content": {"parts": [{"text": ANSWER}]}}]},
}


@pytest.mark.parametrize("record", [BEDROCK, CONVERSED, WEAVE, LANGSMITH, GEMINI])
@pytest.mark.parametrize("format", ["openai", "anthropic"])
def test_a_call_is_read_whichever_log_and_api_it_is_of(format: str, record: Row) -> None:
    assert question_and_answer(format, record) == (ASKED, ANSWER)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (BEDROCK | {"output": {"outputBodyJson": [{"type": "message_start"}]}}, "streamed"),
        (BEDROCK | {"input": {"inputBodyS3Path": "s3://b/k"}}, "kept in another file"),
        (WEAVE | {"exception": "Timeout", "output": None}, "the call failed"),
        (LANGSMITH | {"error": "RateLimitError", "outputs": None}, "the call failed"),
        ({"status": "failure", "messages": [USER], "response": FOUND}, "the call failed"),
        ({"cache_hit": "True", "messages": [USER], "response": FOUND}, "cache hit"),
        (WEAVE | {"inputs": {"doc": ASKED}, "output": ANSWER}, "in a shape that"),
        ({"request": {"messages": [USER]}, "response": {"usage": {}}}, "no answer"),
    ],
)
def test_a_call_that_cannot_be_used_says_why(record: Row, said: str) -> None:
    for format in ("openai", "anthropic"):
        assert said in why_dropped(format, record).reason


@pytest.mark.parametrize(
    "format",
    [name for name in FORMATS if name != "generic"],
)
def test_an_unknown_shape_names_its_keys_and_a_way(format: str) -> None:
    found = why_dropped(format, {"frage": "a b", "antwort\x1b[2J": "c d"})
    assert found.reason == "recorded in a shape that this format does not read"
    assert "frage, antwort [2J" in found.hint
    assert "--map" in found.hint


def test_langsmith_runs() -> None:
    run = LANGSMITH | {"id": "r", "trace_id": "t", "start_time": "2026-05-29T13:46:19"}
    assert question_and_answer("langsmith", run) == (ASKED, ANSWER)
    chain = {"run_type": "chain", "inputs": {}, "outputs": {}, "child_runs": [run]}
    dropped, row = read_rows("langsmith", chain)
    assert not isinstance(dropped, dict)
    assert isinstance(row, dict)
    assert (row["id"], row["group"]) == ("r", "t")
    wrapped = {"run_type": "llm", "inputs": {"question": ASKED}, "outputs": {"output": ANSWER}}
    assert question_and_answer("langsmith", wrapped) == (ASKED, ANSWER)
