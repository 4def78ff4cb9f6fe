"""Calls after `[TOOL_CALLS]`: Mistral's, of both kinds.

Older templates write one JSON list, `[TOOL_CALLS] [{"name": "find", "arguments": {}}]`; newer ones
write `[TOOL_CALLS]find[ARGS]{}` for each call, some with `[CALL_ID]` and an id. Left out: the ids
that a model writes; an episode numbers its calls itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.chat.found_calls import CUT_OFF, FoundCall, NotJson, call_of, read_json

OPEN, ARGS = "[TOOL_CALLS]", "[ARGS]"
_HEAD = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w*\s*)?\[ARGS\]\s*")


@dataclass(frozen=True)
class MistralCalls:
    """The reader of calls after Mistral's token."""

    name: str = "mistral"

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """See `CallReader.find`."""
        found: list[FoundCall] = []
        at = text.find(OPEN)
        while at >= 0:
            inside = at + len(OPEN)
            inside += len(text[inside:]) - len(text[inside:].lstrip())
            listed = text.startswith(("[", "{"), inside)
            found += _listed(text, at, inside) if listed else [_named(text, at, inside)]
            at = text.find(OPEN, found[-1].end)
        return found


def _listed(text: str, begin: int, inside: int) -> list[FoundCall]:
    """Return the calls of the JSON list at `inside`."""
    try:
        values, end = read_json(text, inside)
    except NotJson as error:
        return [FoundCall(begin, _after(text, inside), why=str(error))]
    if isinstance(values, dict):
        values = [values]
    if not values:
        return [FoundCall(begin, end, why="the list has no call")]
    places = [begin] + [end] * (len(values) - 1)
    return [call_of(value, at, end) for at, value in zip(places, values, strict=True)]


def _named(text: str, begin: int, inside: int) -> FoundCall:
    """Return the call whose name stands at `inside`."""
    head = _HEAD.match(text, inside)
    if head is None:
        end = _after(text, inside)
        cut = end == len(text) and ARGS not in text[inside:]
        return FoundCall(begin, end, why=CUT_OFF if cut else f"NAME{ARGS} must follow {OPEN}")
    try:
        arguments, end = read_json(text, head.end())
    except NotJson as error:
        return FoundCall(begin, _after(text, inside), why=str(error))
    return call_of({"name": head[1], "arguments": arguments}, begin, end)


def _after(text: str, at: int) -> int:
    following = text.find(OPEN, at)
    return following if following >= 0 else len(text)
