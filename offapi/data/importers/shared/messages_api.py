"""Responses of Anthropic's Messages API.

A request that ends with the beginning of an answer is continued by the response: both are one
message. Left out: streamed events, and rows that use tools which run at the provider.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, items
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace


def message_row(
    request: Mapping[str, Json], response: Mapping[str, Json], **about: Json
) -> Trace | Dropped:
    """Return the row in a request and its response. `about`: id, group and more for the source."""
    content = response.get("content")
    if content is None:
        return reasons.NO_ANSWER
    asked, answer = _continued(items(request.get("messages")), content)
    system = request.get("system")
    return build_trace(
        [{"role": "system", "content": system}, *asked] if system and asked else asked,
        {"role": "assistant", "content": answer},
        tools=request.get("tools"),
        finish_reason=response.get("stop_reason"),
        model=first(response, "model") or request.get("model"),
        usage=response.get("usage"),
        **about,
    )


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
    start, end = _said(blocks[-1:]), _said(answer[:1])
    if start is None or end is None:
        return asked[:-1], [*blocks, *answer]
    return asked[:-1], [*blocks[:-1], start + end, *answer[1:]]


def _said(blocks: list[Json]) -> str | None:
    """Return the text of the one block in `blocks`, None where it is not a text."""
    block = blocks[0] if blocks else None
    content = block.get("text") if isinstance(block, dict) else block
    return content if isinstance(content, str) else None
