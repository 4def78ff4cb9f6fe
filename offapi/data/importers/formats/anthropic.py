"""Requests to Anthropic's Messages API with their responses, and message batches.

    {"request": {"system", "messages", "tools"}, "response": {"type": "message", "content": [...]}}
    {"custom_id", "params": {...}} and {"custom_id", "result": {"type", "message"}}

The second line shows a batch's two sides. Bedrock's invocation logs are read too. Left out:
streamed events, and rows that use tools which run at the provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.pairs import Half
from offapi.data.importers.shared.call_records import call_rows, side_of
from offapi.data.importers.shared.loose_json import Json, items, obj
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Trace

REQUESTS = ("request", "params", "request_body", "req", "inputs", "input", "kwargs", "body")
RESPONSES = ("response", "result", "response_body", "res", "outputs", "output", "message")
MARKS = (b"custom_id",)


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`."""
    yield from call_rows(record, REQUESTS, RESPONSES)


def halves(record: Mapping[str, Json]) -> Iterator[Half]:
    """Yield the requests or results in `record` that lack the other.

    A batch may also be one object with all its requests.
    """
    for half in map(obj, items(record.get("requests")) or [record]):
        custom_id, request = half.get("custom_id"), side_of(half, REQUESTS)
        if isinstance(custom_id, str) and bool(request) != ("result" in half):
            yield Half(custom_id, half, request or None)
