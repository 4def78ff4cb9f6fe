"""Responses of OpenAI's Chat Completions API: a row for each choice. Left out: streamed chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, items, obj
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace


def choice_rows(
    request: Mapping[str, Json], response: Mapping[str, Json], **about: Json
) -> Iterator[Trace | Dropped]:
    """Yield a row for each choice of a response."""
    choices = items(response.get("choices"))
    if len(choices) > 1:
        about["group"] = about.get("group") or about["id"]
    for choice in choices:
        yield _choice(request, response, obj(choice), about)


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
        _stored(messages if messages is not None else request.get("input")),
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
