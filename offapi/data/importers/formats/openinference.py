"""OpenInference spans, as Phoenix keeps and exports
them: `llm.input_messages.0.message.content` and so on.

The attributes may be flat, nested, or a data frame's columns. Where a span lists no messages, the
raw request and response in `input.value` and `output.value` are read. Left out: spans of other
kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.formats import openai
from offapi.data.importers.shared import reasons, settings
from offapi.data.importers.shared.flat_keys import numbered_array
from offapi.data.importers.shared.loose_json import Json, first, items, known, obj, opened
from offapi.data.importers.shared.otlp import Span, read_spans
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "a span without messages",
    "Unset OPENINFERENCE_HIDE_INPUTS, OPENINFERENCE_HIDE_OUTPUTS and the like where the application"
    " runs, and record again.",
)
HIDDEN = "__REDACTED__"
USAGE = {
    "input_tokens": "llm.token_count.prompt",
    "output_tokens": "llm.token_count.completion",
    "total_tokens": "llm.token_count.total",
}


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """The rows in `record`: one for each span, or for each of a span's answers."""
    for span in read_spans(record):
        yield from _rows(span, record)


def _rows(span: Span, record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    found = span.attributes
    kind = _value(found, "openinference.span.kind") or record.get("span_kind")
    if str(kind).upper() != "LLM":
        yield reasons.NOT_A_CALL
        return
    if span.failed:
        yield reasons.FAILED
        return
    asked = [_message(each) for each in numbered_array(found, "llm.input_messages")]
    answers = [_message(each) for each in numbered_array(found, "llm.output_messages")]
    about = {
        "id": span.id,
        "group": _value(found, "session.id") or span.trace_id,
        "ts": span.started,
        "trace_id": span.trace_id,
        "params": settings.stated_settings(obj(_value(found, "llm.invocation_parameters"))),
    }
    if not asked or not answers:
        yield from _raw(found, about) if _value(found, "input.value") else [NO_CONTENT]
        return
    for answer in answers:
        yield build_trace(
            asked,
            answer,
            tools=[_schema(each) for each in numbered_array(found, "llm.tools")],
            finish_reason=_value(found, "llm.finish_reason"),
            model=_value(found, "llm.response.model_name") or _value(found, "llm.model_name"),
            usage=known(**{name: _value(found, key) for name, key in USAGE.items()}),
            **about,
        )


def _value(found: Mapping[str, Json], key: str) -> Json:
    """The value at the path `key`, whether the attributes are flat or nested."""
    if key in found:
        return found[key]
    head, _, rest = key.partition(".")
    return (
        _value(obj(found.get(head)), rest) if rest and isinstance(found.get(head), dict) else None
    )


def _message(each: Json) -> Json:
    """A message without its prefixes; ordered contents
    stand for the content, which may be there too.
    """
    found = obj(obj(each).get("message"))
    if HIDDEN in (found.get("content"), found.get("role")):
        return {"role": "user", "content": [{"type": HIDDEN}]}
    contents = [_content(part) for part in items(found.get("contents"))]
    made = {name: found.get(name) for name in ("role", "name", "tool_call_id")}
    calls = [obj(obj(call).get("tool_call")) for call in items(found.get("tool_calls"))]
    if found.get("function_call_name"):
        arguments = found.get("function_call_arguments_json")
        made["function_call"] = {"name": found["function_call_name"], "arguments": arguments}
    return {
        **made,
        "content": contents or found.get("content"),
        **({"tool_calls": calls} if calls else {}),
    }


def _content(part: Json) -> Json:
    """A part of the contents; a tool's use carries its call beside."""
    found, call = obj(obj(part).get("message_content")), obj(obj(part).get("tool_call"))
    return {**found, **call, **obj(call.get("function")), "type": "tool_use"} if call else found


def _schema(each: Json) -> Json:
    tool = obj(obj(each).get("tool"))
    return opened(first(tool, "json_schema", "parameters"))


def _raw(found: Mapping[str, Json], about: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """The rows in the raw request and response, where they are those of OpenAI's API."""
    request, response = obj(_value(found, "input.value")), obj(_value(found, "output.value"))
    if request and response:
        yield from openai.exchange(request, response, **about)
    else:
        yield NO_CONTENT
