"""OpenInference spans, as Phoenix keeps and exports them.

Their attributes, such as `llm.input_messages.0.message.content`, may be flat, nested, or a data
frame's columns, which may hold the list as JSON text. Where a span lists no messages, what is in
`input.value` and `output.value` is read: an API's request and response, messages, or texts. Left
out: spans of other kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons, settings
from offapi.data.importers.shared.exchange import pair_rows
from offapi.data.importers.shared.flat_keys import numbered_array, value_at_key
from offapi.data.importers.shared.loose_json import Json, first, items, known, obj, opened
from offapi.data.importers.shared.otel_content import content_keys, refuse_cut, refuse_equal_lengths
from offapi.data.importers.shared.otlp import Span, is_span, read_spans
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "a span without messages",
    "Unset OPENINFERENCE_HIDE_INPUTS, OPENINFERENCE_HIDE_OUTPUTS and the like where the application"
    " runs, and record again.",
)
HIDDEN = "__REDACTED__"
LISTS = ("llm.input_messages", "llm.output_messages")
RAW = ("input.value", "output.value")
USAGE = {
    "input_tokens": "llm.token_count.prompt",
    "output_tokens": "llm.token_count.completion",
    "total_tokens": "llm.token_count.total",
}


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: one for each span, or for each of a span's answers."""
    if not is_span(record):
        yield reasons.unread(record)
        return
    for span in read_spans(record):
        try:
            yield from _rows(span, record)
        except Unusable as error:
            yield error.dropped


def _rows(span: Span, record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    attributes = span.attributes
    kind = value_at_key(attributes, "openinference.span.kind") or record.get("span_kind")
    if str(kind).upper() != "LLM":
        yield reasons.NOT_A_CALL
        return
    if span.failed:
        yield reasons.FAILED
        return
    if span.lost:
        yield reasons.PARTS_LOST
        return
    for name in (*LISTS, *RAW):
        refuse_cut(value_at_key(attributes, name))
    refuse_equal_lengths(attributes)
    asked = [_message(each) for each in numbered_array(attributes, "llm.input_messages")]
    answers = [_message(each) for each in numbered_array(attributes, "llm.output_messages")]
    about = {
        "id": span.id,
        "group": value_at_key(attributes, "session.id") or span.trace_id,
        "ts": span.started,
        "trace_id": span.trace_id,
        "params": settings.stated_settings(
            obj(value_at_key(attributes, "llm.invocation_parameters"))
        ),
    }
    if not asked or not answers:
        yield from _raw(attributes, asked, answers, about)
        return
    for answer in answers:
        tools = [_schema(each) for each in numbered_array(attributes, "llm.tools")]
        yield build_trace(
            asked,
            answer,
            tools=tools,
            finish_reason=value_at_key(attributes, "llm.finish_reason"),
            model=value_at_key(attributes, "llm.response.model_name")
            or value_at_key(attributes, "llm.model_name"),
            usage=known(**{name: value_at_key(attributes, key) for name, key in USAGE.items()}),
            **about,
        )


def _message(each: Json) -> Json:
    """Return a message without its prefixes.

    Ordered contents replace the content, which may be there too.
    """
    fields = obj(obj(each).get("message")) or obj(each)
    if HIDDEN in (fields.get("content"), fields.get("role")):
        return {"role": "user", "content": HIDDEN}
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


def _raw(
    attributes: Mapping[str, Json], asked: Json, answers: Json, about: Mapping[str, Json]
) -> Iterator[Trace | Dropped]:
    """Yield the rows in the raw request and response, next to the messages that are listed."""
    request, response = (value_at_key(attributes, name) for name in RAW)
    question, answer = asked or request, answers or response
    if HIDDEN in (question, answer):
        yield NO_CONTENT
        return
    if question is None and answer is None:
        keys = content_keys(attributes)
        yield reasons.unread(dict.fromkeys(keys)) if keys else NO_CONTENT
        return
    model = value_at_key(attributes, "llm.response.model_name") or value_at_key(
        attributes, "llm.model_name"
    )
    tools = [_schema(each) for each in numbered_array(attributes, "llm.tools")]
    yield from pair_rows(question, answer, tools=tools, **known(model=model), **about)
