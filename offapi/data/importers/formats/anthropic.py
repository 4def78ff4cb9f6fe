"""Requests to Anthropic's Messages API with their responses, and message batches.

    {"request": {"system", "messages", "tools"}, "response": {"type": "message", "content": [...]}}
    {"custom_id", "params": {...}} and {"custom_id", "result": {"type", "message"}}

The second line shows a batch's two sides. A request that ends with the beginning of an answer is
continued by the response: both are one message. Left out: streamed events, and rows that use tools
which run at the provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.pairs import Half
from offapi.data.importers.shared import reasons, settings
from offapi.data.importers.shared.loose_json import Json, first, items, moment, obj
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

REQUESTS = ("request", "params", "request_body", "req", "input", "kwargs", "body")
RESPONSES = ("response", "result", "response_body", "res", "output", "message")
MARKS = (b"custom_id",)


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the one row in `record`."""
    yield exchange(
        _side(record, REQUESTS) or record,
        _side(record, RESPONSES) or record,
        id=first(record, "custom_id", "id"),
        ts=moment(first(record, "ts", "timestamp", "created_at")),
    )


def exchange(
    request: Mapping[str, Json], response: Mapping[str, Json], **about: Json
) -> Trace | Dropped:
    """Return the row in a request and its response. `about`: id, group and more for the source."""
    if response.get("type") in ("succeeded", "errored", "canceled", "expired"):  # a batch's result
        if response["type"] != "succeeded":
            return reasons.FAILED
        response = obj(response.get("message"))
    if response.get("type") == "error" or response.get("error"):
        return reasons.FAILED
    if response.get("type") in ("message_start", "content_block_delta", "message_delta"):
        return reasons.STREAMED
    content = response.get("content")
    if content is None:
        return reasons.NO_ANSWER if "messages" in request else reasons.NOT_A_CALL
    asked, answer = _continued(items(request.get("messages")), content)
    system = request.get("system")
    return build_trace(
        [{"role": "system", "content": system}, *asked] if system and asked else asked,
        {"role": "assistant", "content": answer},
        tools=request.get("tools"),
        finish_reason=response.get("stop_reason"),
        model=first(response, "model") or request.get("model"),
        usage=response.get("usage"),
        **{
            "params": settings.requested_settings(request),
            **about,
            "id": about.get("id") or response.get("id"),
        },
    )


def halves(record: Mapping[str, Json]) -> Iterator[Half]:
    """Yield the requests or results in `record` that lack the other.

    A batch may also be one object with all its requests.
    """
    for half in map(obj, items(record.get("requests")) or [record]):
        custom_id, request = half.get("custom_id"), _side(half, REQUESTS)
        if isinstance(custom_id, str) and bool(request) != ("result" in half):
            yield Half(custom_id, half, request or None)


def _side(record: Mapping[str, Json], names: tuple[str, ...]) -> Mapping[str, Json]:
    """Return the request or the response in `record`, without an HTTP log's envelope."""
    side = next(filter(None, (obj(record.get(name)) for name in names)), {})
    return obj(side.get("body")) or side


def _continued(asked: list[Json], content: Json) -> tuple[list[Json], list[Json]]:
    """Return the messages before the answer, and the answer's blocks.

    The last of the messages may be the beginning of the answer; it is then part of the blocks.
    """
    answer = content if isinstance(content, list) else [content]
    last = asked[-1] if asked else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return asked, answer
    begun = last.get("content")
    blocks = begun if isinstance(begun, list) else [begun]
    return asked[:-1], [*blocks, *answer]
