"""A log's record of one call, with the request and the response under one of their usual names.

Opened on the way: HTTP envelopes, batches' results, Bedrock's invocation log, Elasticsearch's
`_source`. A record that says that its call failed gives no row, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.exchange import call_failed, exchange, is_cache_hit, pair_rows
from offapi.data.importers.shared.loose_json import Json, first, moment, obj, opened
from offapi.data.importers.shared.message_shapes import is_message
from offapi.data.importers.shared.reading import ASKED, has_messages, is_request, is_response
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Trace

BODIES = ("body", "inputBodyJson", "outputBodyJson")
ELSEWHERE = ("inputBodyS3Path", "outputBodyS3Path")
BATCH_RESULTS = ("succeeded", "errored", "canceled", "expired")
STARTED = ("ts", "timestamp", "created_at", "started_at", "start_time", "startTime")
KEPT_ELSEWHERE = Dropped(
    "the content is kept in another file",
    "Bedrock writes large bodies to the S3 path that the record names: import these files, or put"
    " their contents into the records.",
)


def call_rows(
    record: Mapping[str, Json], requests: tuple[str, ...], responses: tuple[str, ...]
) -> Iterator[Trace | Dropped]:
    """Yield the rows of a call. `requests`, `responses`: the names that either may have."""
    record = obj(record.get("_source")) or record
    request, given = side_of(record, requests), _given(record, responses)
    response = _response(given)
    about = {
        "id": first(record, "custom_id", "id", "requestId"),
        "group": first(record, "session_id", "sessionId"),
        "ts": moment(first(record, *STARTED)),
        "gold": opened(record.get("expected")),
    }
    if call_failed(record) or _unsuccessful(given):
        yield reasons.FAILED
    elif is_cache_hit(record):
        yield reasons.CACHE_HIT
    elif any(name in obj(record.get(side)) for name in ELSEWHERE for side in ("input", "output")):
        yield KEPT_ELSEWHERE
    elif request and not any(name in request for name in ASKED):
        yield reasons.unread(record)
    elif is_response(record):
        yield from exchange(request or record, record, **about)
    elif response:
        yield from exchange(request or record, response, **about)
    elif given is None:
        yield _unknown(record, request)
    elif is_request(request) or is_request(record):
        yield from pair_rows(request or record, given, **about)
    elif has_messages(first(record, *requests)):
        yield from pair_rows(first(record, *requests), given, **about)
    else:
        yield _unknown(record, request)


def side_of(record: Mapping[str, Json], names: tuple[str, ...]) -> Mapping[str, Json]:
    """Return the request in `record`, or the response, without its envelope.

    HTTP logs, batches and Bedrock put one around it.
    """
    for name in names:
        side = obj(record.get(name))
        if side:
            inner = obj(first(side, *BODIES))
            return {**inner, "status_code": side.get("status_code")} if inner else side
    return {}


def _given(record: Mapping[str, Json], names: tuple[str, ...]) -> Json:
    """Return what the record holds as the response, without its envelope."""
    value = first(record, *names)
    side = opened(value)
    if not isinstance(side, dict):
        return value
    if side.get("type") in BATCH_RESULTS:
        return side if side["type"] != "succeeded" else side.get("message")
    body = first(side, *BODIES)
    if body is None:
        return value
    inner = opened(body)
    return {**inner, "status_code": side.get("status_code")} if isinstance(inner, dict) else body


def _response(given: Json) -> Mapping[str, Json]:
    """Return what was given as an API's response; an empty object for a message or a text.

    An object is never the text of an answer here, but JSON text may be.
    """
    content = opened(given)
    if not isinstance(content, dict) or (is_message(content) and not is_response(content)):
        return {}
    if isinstance(given, str) and not is_response(content) and "usage" not in content:
        return {}
    return content


def _unsuccessful(given: Json) -> bool:
    result = opened(given)
    return isinstance(result, dict) and result.get("type") in (*BATCH_RESULTS[1:], "error")


def _unknown(record: Mapping[str, Json], request: Mapping[str, Json]) -> Dropped:
    """Return the reason for a record whose answer is missing or in an unknown shape."""
    asked = is_request(request) or is_request(record)
    return reasons.NO_ANSWER if asked else reasons.unread(record)
