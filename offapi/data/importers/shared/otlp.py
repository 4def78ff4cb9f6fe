"""OpenTelemetry spans and events, nested or flat, in one shape.

OTLP/JSON nests `resourceSpans[].scopeSpans[].spans[]` and writes attributes as a list of keys with
typed values; consoles, notebooks and Phoenix write an object of attributes. Left out: OTLP in
protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from offapi.data.importers.shared.loose_json import Json, first, items, moment, obj

SPANS = ("resourceSpans", "resource_spans")
LOGS = ("resourceLogs", "resource_logs")
SCOPES = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "scopeLogs", "scope_logs")
LEAVES = ("spans", "logRecords", "log_records")
STARTED = (
    "startTimeUnixNano",
    "start_time_unix_nano",
    "start_time",
    "startTime",
    "timeUnixNano",
    "time_unix_nano",
)
DEEPEST = 100  # levels of an attribute's value
FAILED = ("ERROR", "STATUS_CODE_ERROR", "2", 2)


@dataclass(frozen=True)
class Span:
    """A span, or an event that represents one."""

    name: str
    attributes: Mapping[str, Json]
    events: tuple[tuple[str, Mapping[str, Json]], ...]
    id: Json
    parent_id: Json
    trace_id: Json
    started: str | None
    failed: bool


def read_spans(record: Mapping[str, Json]) -> Iterator[Span]:
    """Yield all spans and log records in `record`."""
    pages = record.get("data")  # of Phoenix's API
    if isinstance(pages, list) and "attributes" not in record:
        for page in map(obj, pages):
            yield _span(page)
        return
    resources = [each for name in (*SPANS, *LOGS) for each in items(record.get(name))]
    if not resources and not any(name in record for name in (*SPANS, *LOGS)):
        yield _span(record)
    for resource in map(obj, resources):
        for scope in (obj(each) for name in SCOPES for each in items(resource.get(name))):
            for leaf in (obj(each) for name in LEAVES for each in items(scope.get(name))):
                yield _span(leaf)


def _span(record: Mapping[str, Json]) -> Span:
    attributes = _attributes(record)
    context, status = obj(record.get("context")), obj(record.get("status"))
    failed = first(status, "code", "status_code", "statusCode") or first(
        record, "status_code", "statusCode"
    )
    return Span(
        name=str(
            first(record, "name", "eventName", "event_name") or attributes.get("event.name") or ""
        ),
        attributes=attributes,
        events=tuple(
            (str(event.get("name")), _attributes(event))
            for event in map(obj, items(record.get("events")))
        ),
        id=first(record, "spanId", "span_id", "context.span_id") or context.get("span_id"),
        parent_id=first(record, "parentSpanId", "parent_span_id", "parent_id"),
        trace_id=first(record, "traceId", "trace_id", "context.trace_id")
        or context.get("trace_id"),
        started=moment(first(record, *STARTED)),
        failed=failed in FAILED or bool(attributes.get("error.type")),
    )


def _attributes(record: Mapping[str, Json]) -> dict[str, Json]:
    """Return attributes by key. A data frame's columns, `attributes.KEY`, count too."""
    given = record.get("attributes")
    if isinstance(given, list):
        return {str(pair.get("key")): _value(pair.get("value"), 0) for pair in map(obj, given)}
    prefix = "attributes."
    columns = {
        name.removeprefix(prefix): value
        for name, value in record.items()
        if name.startswith(prefix)
    }
    return {**columns, **obj(given)}


def _value(typed: Json, depth: int) -> Json:
    """Return the value in OTLP's typed envelope, such as {"stringValue": "a"}.

    Numbers of 64 bits come as text.
    """
    if not isinstance(typed, dict) or len(typed) != 1 or depth > DEEPEST:
        return None
    ((kind, value),) = typed.items()
    if kind in ("arrayValue", "array_value"):
        return [_value(each, depth + 1) for each in items(obj(value).get("values"))]
    if kind in ("kvlistValue", "kvlist_value"):
        pairs = map(obj, items(obj(value).get("values")))
        return {str(pair.get("key")): _value(pair.get("value"), depth + 1) for pair in pairs}
    if kind in ("intValue", "int_value"):
        return _integer(value)
    plain = kind.removesuffix("Value").removesuffix("_value")
    return value if plain in ("string", "double", "bool", "bytes") else None


def _integer(value: Json) -> Json:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
