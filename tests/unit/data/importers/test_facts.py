"""What importers keep besides the messages, in each format: request settings and scores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from offapi.data.importers import importer
from offapi.data.importers.importer import Outcome
from offapi.data.importers.shared import otel_scores
from offapi.data.importers.shared.reasons import NOT_A_CALL
from offapi.data.traces import Trace

Row = dict[str, Any]

ASKED, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CHAT = {"choices": [{"message": ANSWER, "finish_reason": "stop"}]}
ITEMS = {"status": "completed", "output": [{"type": "message", **ANSWER}]}
MESSAGE = {"type": "message", "content": "a"}
MESSAGES = {"messages": [ASKED]}
SET = {"temperature": 0.2, "max_tokens": 64}
MORE = SET | {"api_key": "k", "extra_headers": {"a": "b"}, "user": "u", "model": "m", "seed": None}
OTEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.input.messages": [ASKED],
    "gen_ai.output.messages": [ANSWER],
}
INVOKED = "llm.invocation_parameters"
RAW = {"openinference.span.kind": "LLM", "output.value": CHAT}
LLM = {
    "openinference.span.kind": "LLM",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "q",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "a",
}


def observed(asked: object, answer: object, **more: object) -> Row:
    return {"type": "GENERATION", "input": asked, "output": answer, **more}


def logged(response: object, **more: object) -> Row:
    return {"call_type": "completion", "response": response, **more}


def generated(**settings: object) -> Row:
    return {
        "span_data": {
            "type": "generation",
            "input": [ASKED],
            "output": [ANSWER],
            "model_config": settings,
        }
    }


def traces(format: str, record: Row) -> list[Outcome]:
    return list(importer.find_importer(format, {}).rows(json.loads(json.dumps(record))))


def source(format: str, record: Row) -> Row:
    """Return what is known of the one trace in `record`."""
    (row,) = traces(format, record)
    assert isinstance(row, Trace), row
    return dict(row.source or {})


KEPT: list[tuple[str, Row]] = [
    ("openai-ft", {"messages": [ASKED, ANSWER], **MORE}),
    ("openai", {"request": MESSAGES | MORE, "response": CHAT}),
    ("openai", {"id": "flat", **MESSAGES, **CHAT, **MORE, "text": "t", "reasoning": "r"}),
    ("openai", {"request": {"input": "q"} | SET, "response": ITEMS | {"temperature": 1.0}}),
    ("anthropic", {"request": MESSAGES | MORE, "response": MESSAGE}),
    (
        "otel",
        {"attributes": OTEL | {f"gen_ai.request.{name}": value for name, value in MORE.items()}},
    ),
    ("openinference", {"attributes": LLM | {INVOKED: json.dumps(MORE)}}),
    ("openinference", {"attributes": RAW | {"input.value": MESSAGES, INVOKED: json.dumps(MORE)}}),
    ("openinference", {"attributes": RAW | {"input.value": json.dumps(MESSAGES | MORE)}}),
    ("langfuse", observed([ASKED], "a", model_parameters=json.dumps(MORE))),
    ("langfuse", observed([ASKED], CHAT, modelParameters=SET)),
    ("langfuse", observed(MESSAGES | MORE, "a")),
    ("litellm", logged(CHAT, model_parameters=MORE, **MESSAGES)),
    ("litellm", logged(CHAT, proxy_server_request={"body": MESSAGES | MORE})),
    ("litellm", logged("a", model_parameters=MORE, **MESSAGES)),
    ("litellm", logged(MESSAGE, model_parameters=MORE, **MESSAGES)),
    ("litellm", logged(ITEMS, model_parameters=MORE, **MESSAGES)),
    ("agents-sdk", generated(**MORE)),
    ("agents-sdk", {"span_data": {"type": "response", "input": "q", "response": ITEMS | MORE}}),
]


@pytest.mark.parametrize(("format", "record"), KEPT)
def test_settings_are_kept_but_not_headers_keys_or_users(format: str, record: Row) -> None:
    assert source(format, record)["params"] == SET


def test_settings_that_are_objects_or_of_a_single_log() -> None:
    budget = {"thinking": {"type": "enabled", "budget_tokens": 9}}
    assert (
        source("anthropic", {"request": MESSAGES | budget, "response": MESSAGE})["params"] == budget
    )
    named = {"gen_ai.request.top_k": 3, "openai.request.service_tier": "x"}
    assert source("otel", {"attributes": OTEL | named})["params"] == {
        "top_k": 3,
        "service_tier": "x",
    }
    assert source("langfuse", observed([ASKED], "a", modelParameters={"mirostat": 2}))[
        "params"
    ] == {"mirostat": 2}
    assert "params" not in source("openai", {"request": MESSAGES, "response": CHAT})


def scored(name: str | None, value: object = None, label: str | None = None, **more: object) -> Row:
    score = {"score.value": value, "score.label": label, "name": name, **more}
    return {f"gen_ai.evaluation.{key}": each for key, each in score.items() if each is not None}


SCORES: list[tuple[Row, Row]] = [
    (scored("tone", 0.0), {"tone": 0.0}),
    (scored("tone", label="warm"), {"tone": "warm"}),
    (scored("tone", 1, "warm"), {"tone": 1, "tone.label": "warm"}),
    (scored("tone", score=3), {"tone": 3}),
]


@pytest.mark.parametrize(("attributes", "scores"), SCORES)
def test_scores_on_a_span_are_kept(attributes: Row, scores: Row) -> None:
    assert source("otel", {"attributes": OTEL | attributes})["scores"] == scores


def test_scores_in_a_spans_events_are_kept() -> None:
    events = [
        {"name": "gen_ai.evaluation.result", "attributes": scored("tone", 0.5)},
        {"name": "gen_ai.evaluation.relevance", "attributes": scored(None, 4)},
        {"name": "exception", "attributes": {}},
    ]
    assert source("otel", {"attributes": OTEL, "events": events})["scores"] == {
        "tone": 0.5,
        "relevance": 4,
    }


def otlp(found: Row, **more: str) -> Row:
    """Return a span or log record as OTLP/JSON writes it."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()
    }
    return {
        **more,
        "attributes": [{"key": key, "value": {"stringValue": text}} for key, text in texts.items()],
    }


def test_separate_scores_find_their_answer_and_are_counted() -> None:
    event, response = "gen_ai.evaluation.result", {"gen_ai.response.id": "r1"}
    spans = [
        otlp(OTEL | response, spanId="s1", name="chat"),
        otlp(scored("tone", label="warm"), spanId="s2", parentSpanId="s1", name=event),
    ]
    logs = [
        otlp(scored("help", label="yes"), spanId="s1", eventName=event),
        otlp(scored("fit", label="no") | response, eventName=event),
        otlp(scored("lost", label="x"), spanId="s9", eventName=event),
    ]
    record = {
        "resourceSpans": [{"scopeSpans": [{"spans": spans}]}],
        "resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}],
    }
    row, *others = traces("otel", record)
    assert isinstance(row, Trace)
    assert (row.source or {})["scores"] == {"tone": "warm", "help": "yes", "fit": "no"}
    assert others == [otel_scores.APART] * 4


def test_a_score_of_something_else_is_reported() -> None:
    agent = {"gen_ai.operation.name": "invoke_agent"}
    assert traces("otel", {"attributes": agent | scored("tone", 1)}) == [otel_scores.OF_ANOTHER]
    assert traces("otel", {"attributes": agent}) == [NOT_A_CALL]
