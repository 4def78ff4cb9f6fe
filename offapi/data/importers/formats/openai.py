"""Requests to OpenAI's API with their responses, as applications, proxies and batches record them.

    {"request": {"messages": [...]}, "response": {"choices": [...]}}      and other usual names
    {"custom_id", "body": {...}} and {"custom_id", "response": {"body": {...}}}      a batch's files
    {"object": "chat.completion", ...} and the pages of its messages      stored completions

Requests and responses may be objects or JSON texts, of Chat Completions or Responses; those of
other APIs are read too, as are messages with a text. Each choice is a row. Left out: streamed
chunks, embeddings, text completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.pairs import Half
from offapi.data.importers.shared.call_records import call_rows, side_of
from offapi.data.importers.shared.loose_json import Json, items, obj
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Trace

REQUESTS = ("request", "request_body", "req", "inputs", "input", "kwargs", "params", "body")
RESPONSES = ("response", "response_body", "res", "outputs", "output", "completion", "result")
MARKS = (b"custom_id", b"chat.completion", b"list")


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: one, one for each choice, or a page of stored completions."""
    for call in _unpaged(record):
        yield from call_rows(call, REQUESTS, RESPONSES)


def halves(record: Mapping[str, Json]) -> Iterator[Half]:
    """Yield the requests or results in `record` that lack the other."""
    custom_id = record.get("custom_id")
    if isinstance(custom_id, str):
        request, result = side_of(record, REQUESTS), "response" in record or "error" in record
        if bool(request) != result:
            yield Half(custom_id, record, request or None)
        return
    listed = items(record.get("data")) if record.get("object") == "list" else [record]
    pages: dict[str, list[Json]] = {}
    for half in map(obj, listed):
        id = half.get("id")
        if not isinstance(id, str):
            continue
        if half.get("object") == "chat.completion" and not any(
            name in half for name in ("messages", *REQUESTS)
        ):
            yield Half(id, half, None)
        elif "role" in half and "-" in id:  # a message's id is its completion's and a number
            pages.setdefault(id.rpartition("-")[0], []).append(half)
    for id, messages in pages.items():
        yield Half(id, record, {"messages": messages})


def _unpaged(record: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    listed = items(record.get("data"))
    page: list[Mapping[str, Json]] = [call for call in listed if isinstance(call, dict)]
    return page if record.get("object") == "list" and page else [record]
