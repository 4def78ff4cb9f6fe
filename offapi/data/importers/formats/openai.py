"""Requests to OpenAI's API with their responses, as applications, proxies and batches record them.

    {"request": {"messages": [...]}, "response": {"choices": [...]}}      and other usual names
    {"custom_id", "body": {...}} and {"custom_id", "response": {"body": {...}}}      a batch's files
    {"object": "chat.completion", ...} and the pages of its messages      stored completions

Requests and responses may be objects or JSON texts, of Chat Completions or Responses. Each choice
is a row. Left out: streamed chunks, embeddings, text completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.pairs import Half
from offapi.data.importers.shared import reasons, responses_api, settings
from offapi.data.importers.shared.loose_json import Json, first, items, moment, obj
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

REQUESTS = ("request", "request_body", "req", "input", "kwargs", "params", "body")
RESPONSES = ("response", "response_body", "res", "output", "completion", "result")
MARKS = (b"custom_id", b"chat.completion", b"list")


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the rows in `record`: one, one for each choice, or a page of stored completions."""
    for call in _unpaged(record):
        request, response = _side(call, REQUESTS), _side(call, RESPONSES)
        yield from exchange(request or call, response or call, id=first(call, "custom_id", "id"))


def exchange(
    request: Mapping[str, Json], response: Mapping[str, Json], **about: Json
) -> Iterator[Trace | Dropped]:
    """Yield the rows in a request and its response. `about`: id, group and more for the source."""
    choices = items(response.get("choices"))
    about.setdefault("ts", moment(first(response, "created", "created_at")))
    about["id"] = about.get("id") or response.get("id")
    about["params"] = about.get("params") or settings.requested_settings(request, response)
    if response.get("error") or response.get("status_code") not in (None, 200):
        yield reasons.FAILED
    elif choices:
        if len(choices) > 1:
            about["group"] = about.get("group") or about["id"]
        for choice in choices:
            yield _choice(request, response, obj(choice), about)
    elif isinstance(response.get("output"), list):
        yield responses_api.response_row(request, response, **about)
    else:
        yield reasons.NO_ANSWER if "messages" in request else reasons.NOT_A_CALL


def halves(record: Mapping[str, Json]) -> Iterator[Half]:
    """Yield the requests or results in `record` that lack the other."""
    custom_id = record.get("custom_id")
    if isinstance(custom_id, str):
        request, result = _side(record, REQUESTS), "response" in record or "error" in record
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


def _side(record: Mapping[str, Json], names: tuple[str, ...]) -> Mapping[str, Json]:
    """Return the request or the response in `record`.

    The envelope that HTTP logs and batches put around it is removed.
    """
    for name in names:
        side = obj(record.get(name))
        if side:
            inner = obj(side.get("body"))
            return {**inner, "status_code": side.get("status_code")} if inner else side
    return {}


def _unpaged(record: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    listed = items(record.get("data"))
    page: list[Mapping[str, Json]] = [call for call in listed if isinstance(call, dict)]
    return page if record.get("object") == "list" and page else [record]


def _choice(
    request: Mapping[str, Json],
    response: Mapping[str, Json],
    choice: Mapping[str, Json],
    about: Mapping[str, Json],
) -> Trace | Dropped:
    messages = request.get("messages")
    if isinstance(messages, dict):  # a page of a stored completion's messages
        messages = messages.get("data")
    if "delta" in choice:
        return reasons.STREAMED
    if "message" not in choice and ("text" in choice or "prompt" in request):
        return reasons.NOT_A_CHAT
    return build_trace(
        _stored(messages),
        choice.get("message"),
        tools=first(request, "tools", "functions"),
        finish_reason=choice.get("finish_reason"),
        model=first(response, "model") or request.get("model"),
        usage=response.get("usage"),
        **about,
    )


def _stored(messages: Json) -> Json:
    """Return `messages` with their parts in place, which a stored completion lists separately."""
    if not isinstance(messages, list):
        return messages
    return [
        {**message, "content": message["content_parts"]}
        if isinstance(message, dict) and message.get("content_parts")
        else message
        for message in messages
    ]
