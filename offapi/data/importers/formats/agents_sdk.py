"""OpenAI Agents SDK: the spans that `offapi/data/importers/agents_processor.py` writes.

There is one span for each answer of a model. System prompt and tools of a Responses span are those
that the response repeats. A Chat Completions span names no tools and no finish reason: an answer
that used up `max_tokens` was cut off. Left out: spans of agents, tools and guardrails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons, responses_api, settings
from offapi.data.importers.shared.loose_json import Json, first, items, obj
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "an exported span, which holds no messages",
    "The SDK's own export leaves them out: install the tracing processor that `offapi traces"
    " processor` prints, leave trace_include_sensitive_data at True, and run the agent again.",
)


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: a span, or an export's list of them."""
    exported = record.get("data")
    for span in map(obj, exported) if isinstance(exported, list) else [record]:
        yield _row(span)


def _row(span: Mapping[str, Json]) -> Trace | Dropped:
    data = obj(span.get("span_data"))
    kind = data.get("type")
    about = {
        "id": span.get("id"),
        "group": first(span, "group_id", "trace_id"),
        "ts": span.get("started_at"),
        "trace_id": span.get("trace_id"),
    }
    if "span_data" not in span and span.get("object") not in ("trace", "trace.span"):
        return reasons.unread(span)
    if kind not in ("response", "generation"):
        return reasons.NOT_A_CALL
    if span.get("error"):
        return reasons.FAILED
    if kind == "response":
        response = obj(data.get("response"))
        if not response:
            return NO_CONTENT
        return responses_api.response_row({"input": data.get("input")}, response, **about)
    return _generation(data, about)


def _generation(data: Mapping[str, Json], about: Mapping[str, Json]) -> Trace | Dropped:
    asked, answers = items(data.get("input")), items(data.get("output"))
    if not asked and not answers:
        return NO_CONTENT
    streamed = obj(answers[0]) if answers else {}
    if "output" in streamed:  # the SDK turns a stream into a response of the Responses API
        try:
            answers = responses_api.response_messages(items(streamed["output"]))
        except Unusable as error:
            return error.dropped
    usage, model_config = data.get("usage"), obj(data.get("model_config"))
    written, limit = obj(usage).get("output_tokens"), model_config.get("max_tokens")
    cut = isinstance(written, int) and isinstance(limit, int) and written >= limit
    about = {
        **about,
        "model": data.get("model"),
        "usage": usage,
        "params": settings.stated_settings(model_config),
    }
    return build_trace(asked, answers, finish_reason="length" if cut else None, **about)
