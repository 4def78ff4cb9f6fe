"""OpenInference spans, as Phoenix keeps and exports them.

Their attributes, such as `llm.input_messages.0.message.content`, may be flat, nested, or a data
frame's columns. Where a span lists no messages, the raw request and response in `input.value` and
`output.value` are read. Left out: spans of other kinds.
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
    """Yield the rows in `record`: one for each span, or for each of a span's answers."""
    for span in read_spans(record):
        yield from _rows(span, record)


def _rows(span: Span, record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    attributes = span.attributes
    kind = _value(attributes, "openinference.span.kind") or record.get("span_kind")
    if str(kind).upper() != "LLM":
        yield reasons.NOT_A_CALL
        return
    if span.failed:
        yield reasons.FAILED
        return
    asked = [_message(each) for each in numbered_array(attributes, "llm.input_messages")]
    answers = [_message(each) for each in numbered_array(attributes, "llm.output_messages")]
    about = {
        "id": span.id,
        "group": _value(attributes, "session.id") or span.trace_id,
        "ts": span.started,
        "trace_id": span.trace_id,
        "params": settings.stated_settings(obj(_value(attributes, "llm.invocation_parameters"))),
    }
    if not asked or not answers:
        yield from _raw(attributes, about) if _value(attributes, "input.value") else [NO_CONTENT]
        return
    for answer in answers:
        tools = [_schema(each) for each in numbered_array(attributes, "llm.tools")]
        yield build_trace(
            asked,
            answer,
            tools=tools,
            finish_reason=_value(attributes, "llm.finish_reason"),
            model=_value(attributes, "llm.response.model_name")
            or _value(attributes, "llm.model_name"),
            usage=known(**{name: _value(attributes, key) for name, key in USAGE.items()}),
            **about,
        )


def _value(attributes: Mapping[str, Json], key: str) -> Json:
    """Return the value at the path `key`, whether the attributes are flat or nested."""
    if key in attributes:
        return attributes[key]
    head, _, rest = key.partition(".")
    if rest and isinstance(attributes.get(head), dict):
        return _value(obj(attributes.get(head)), rest)
    return None


def _message(each: Json) -> Json:
    """Return a message without its prefixes.

    Ordered contents replace the content, which may be there too.
    """
    fields = obj(obj(each).get("message"))
    if HIDDEN in (fields.get("content"), fields.get("role")):
        return {"role": "user", "content": [{"type": HIDDEN}]}
    contents = [_content(part) for part in items(fields.get("contents"))]
    message = {name: fields.get(name) for name in ("role", "name", "tool_call_id")}
    calls = [obj(obj(call).get("tool_call")) for call in items(fields.get("tool_calls"))]
    if fields.get("function_call_name"):
        arguments = fields.get("function_call_arguments_json")
        message["function_call"] = {"name": fields["function_call_name"], "arguments": arguments}
    message["content"] = contents or fields.get("content")
    if calls:
        message["tool_calls"] = calls
    return message


def _content(part: Json) -> Json:
    """Return a part of the contents; a tool's use has its call next to it."""
    content, call = obj(obj(part).get("message_content")), obj(obj(part).get("tool_call"))
    if not call:
        return content
    return {**content, **call, **obj(call.get("function")), "type": "tool_use"}


def _schema(each: Json) -> Json:
    tool = obj(obj(each).get("tool"))
    return opened(first(tool, "json_schema", "parameters"))


def _raw(attributes: Mapping[str, Json], about: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in the raw request and response, where they are those of OpenAI's API."""
    request, response = (
        obj(_value(attributes, "input.value")),
        obj(_value(attributes, "output.value")),
    )
    if request and response:
        yield from openai.exchange(request, response, **about)
    else:
        yield NO_CONTENT
