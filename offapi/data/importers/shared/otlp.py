"""OpenTelemetry spans and events, nested or flat, in one shape.

OTLP/JSON nests `resourceSpans[].scopeSpans[].spans[]` and writes attributes as a list of keys with
typed values; consoles, notebooks and Phoenix write an object of attributes. Opened as well: Tempo's
batches, Jaeger's and Zipkin's traces, MLflow's, Elasticsearch's documents, ClickHouse's rows. Left
out: OTLP in protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from offapi.data.importers.shared.loose_json import Json, first, items, moment, obj, opened

CONTAINERS = (
    *("resourceSpans", "resource_spans", "resourceLogs", "resource_logs", "batches"),
    *("scopeSpans", "scope_spans", "instrumentationLibrarySpans", "scopeLogs", "scope_logs"),
    *("spans", "logRecords", "log_records", "data", "trace", "traces", "hits", "_source"),
)
ATTRIBUTES = ("attributes", "Attributes", "tags", "SpanAttributes", "span_attributes")
COLUMNS = ("attributes.", "Attributes.", "span.attributes.")
NESTED = ("gen_ai", "ai", "llm", "mlflow", "langsmith", "langfuse", "openinference", "traceloop")
WHOLE = ("gen_ai.prompt", "gen_ai.completion", "ai.prompt", "mlflow.spanInputs")  # may be objects
STARTED = (
    "startTimeUnixNano",
    "start_time_unix_nano",
    "start_time",
    "startTime",
    "timeUnixNano",
    "time_unix_nano",
    "Timestamp",
    "timestamp",
    "@timestamp",
)
DEEPEST = 100  # levels of an attribute's value
DROPPED = (
    ("droppedAttributesCount", "dropped_attributes_count"),
    ("droppedEventsCount", "dropped_events_count"),
)
FAILED = ("ERROR", "STATUS_CODE_ERROR", "2", 2, "Error")


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
    lost: bool = False  # the record says that attributes or events of it were dropped


def read_spans(record: Mapping[str, Json]) -> Iterator[Span]:
    """Yield all spans and log records in `record`."""
    if _has_attributes(record) or not any(name in record for name in CONTAINERS):
        yield _span(record)
        return
    for name in CONTAINERS:
        inner = opened(record.get(name))
        for each in _objects(inner if isinstance(inner, list) else [inner]):
            yield from read_spans(each)


def is_span(record: Mapping[str, Json]) -> bool:
    """Return whether a record has attributes, or contains what may have them."""
    return _has_attributes(record) or any(name in record for name in CONTAINERS)


def _has_attributes(record: Mapping[str, Json]) -> bool:
    if any(name.startswith(COLUMNS) for name in record):
        return True
    return any(isinstance(opened(record.get(name)), dict | list) for name in ATTRIBUTES)


def _objects(listed: list[Json]) -> Iterator[Mapping[str, Json]]:
    """Yield the objects in a list, or in lists within it."""
    for each in listed:
        if isinstance(each, dict):
            yield each
        elif isinstance(each, list):
            yield from _objects(each)


def _span(record: Mapping[str, Json]) -> Span:
    attributes = _attributes(record)
    context = obj(record.get("context"))
    inner = obj(record.get("span"))  # Elasticsearch's and Logstash's
    events = list(_events(record))
    name = first(record, "name", "eventName", "event_name", "operationName", "Name", "SpanName")
    lost = _dropped(record) or any(_dropped(event) for event, _ in events)
    return Span(
        name=str(name or inner.get("name") or attributes.get("event.name") or ""),
        attributes=attributes,
        events=tuple((str(event.get("name")), found) for event, found in events),
        id=first(record, "spanId", "span_id", "spanID", "SpanId", "context.span_id")
        or first(context, "span_id", "spanId")
        or inner.get("id")
        or record.get("id"),
        parent_id=first(record, "parentSpanId", "parent_span_id", "parent_id", "parentId"),
        trace_id=first(record, "traceId", "trace_id", "traceID", "TraceId", "context.trace_id")
        or first(context, "trace_id", "traceId"),
        started=moment(first(record, *STARTED)),
        failed=_failed(record, attributes),
        lost=lost,
    )


def _failed(record: Mapping[str, Json], attributes: Mapping[str, Json]) -> bool:
    """Return whether a span's status or attributes say that its call failed."""
    code = first(obj(record.get("status")), "code", "status_code", "statusCode")
    code = code or first(record, "status_code", "statusCode", "StatusCode")
    code = code or attributes.get("otel.status_code")
    marked = str(attributes.get("error")).lower() == "true"
    return code in FAILED or bool(attributes.get("error.type")) or marked


def _events(
    record: Mapping[str, Json],
) -> Iterator[tuple[Mapping[str, Json], Mapping[str, Json]]]:
    """Yield each event with its attributes; Jaeger calls them logs, and keeps their name in one."""
    for event in map(obj, items(record.get("events"))):
        yield event, _attributes(event)
    for log in map(obj, items(record.get("logs"))):
        fields = _attributes({"attributes": log.get("fields")})
        yield {**log, "name": first(fields, "event", "name", "message")}, fields


def _dropped(record: Mapping[str, Json]) -> bool:
    """Return whether a span or an event says that a part of it was dropped."""
    counts = (first(record, *names) for names in DROPPED)
    return any(str(count) not in ("None", "0", "") for count in counts)


def _attributes(record: Mapping[str, Json]) -> dict[str, Json]:
    """Return attributes by key. A data frame's columns, `attributes.KEY`, count too."""
    given = opened(first(record, *ATTRIBUTES))
    if isinstance(given, list):
        return {str(pair.get("key")): _pair_value(pair) for pair in map(obj, given)}
    columns: dict[str, Json] = {}
    for name, value in record.items():
        for prefix in COLUMNS:
            if name.startswith(prefix):
                columns[name.removeprefix(prefix).replace("@", ".")] = value
    return {**columns, **_flattened(obj(given), "")}


def _flattened(attributes: Mapping[str, Json], path: str) -> dict[str, Json]:
    """Return attributes whose keys a document store has nested, by their whole key."""
    flat: dict[str, Json] = {}
    for name, value in attributes.items():
        key = f"{path}{name}"
        nested = (path or name in NESTED) and key not in WHOLE
        if isinstance(value, dict) and value and nested:
            flat |= _flattened(value, f"{key}.")
        else:
            flat[key] = value
    return flat


def _pair_value(pair: Mapping[str, Json]) -> Json:
    """Return the value of an attribute in a list; Jaeger's are plain, with the type next to it."""
    value = pair.get("value")
    return _value(value, 0) if isinstance(value, dict) else value


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
