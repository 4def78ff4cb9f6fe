"""OpenAI Agents SDK: the spans that `offapi/agents_processor.py` writes, one for each answer of a model.

Left out: spans of agents, tools and guardrails. The definitions of the tools are only in spans of the
Responses API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers import dropped, responses
from offapi.data.importers.build import build
from offapi.data.importers.dropped import Dropped
from offapi.data.importers.values import Json, first, items, obj
from offapi.data.traces import Trace

NO_CONTENT = Dropped(
    "an exported span, which holds no messages",
    "The SDK's own export leaves them out: install the tracing processor that `offapi traces processor` prints, "
    "and run the agent again.",
)


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """The rows in `record`: a span, or an export's list of them."""
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
    if kind not in ("response", "generation"):
        return dropped.NOT_A_CALL
    if span.get("error"):
        return dropped.FAILED
    if kind == "response":
        response = obj(data.get("response"))
        return responses.row({"input": data.get("input")}, response, **about) if response else NO_CONTENT
    asked, answers = items(data.get("input")), items(data.get("output"))
    if not asked and not answers:
        return NO_CONTENT
    return build(asked, answers, model=data.get("model"), usage=data.get("usage"), **about)
