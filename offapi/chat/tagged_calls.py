"""Calls as JSON between tags: Qwen 2.5 and 3, Hermes, SmolLM 3, and the fallback.

`<tool_call>{"name": "find", "arguments": {"q": "x"}}</tool_call>`, once for each call. Left out:
JSON without the tags, which is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.chat.found_calls import CUT_OFF, FoundCall, NotJson, call_of, read_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class TaggedCalls:
    """The reader of calls between tags."""

    name: str = "hermes"

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """See `CallReader.find`."""
        found: list[FoundCall] = []
        at = text.find(OPEN)
        while at >= 0:
            found.append(_one(text, at))
            at = text.find(OPEN, found[-1].end)
        return found


def _one(text: str, begin: int) -> FoundCall:
    """Return the call whose opening tag stands at `begin`."""
    inside = begin + len(OPEN)
    start = inside + len(text[inside:]) - len(text[inside:].lstrip())
    try:
        value, end = read_json(text, start)
    except NotJson as error:
        end = _after(text, inside)
        cut = str(error) == CUT_OFF and text.endswith(CLOSE, begin, end)
        return FoundCall(begin, end, why="its JSON does not end" if cut else str(error))
    rest = text[end:].lstrip()
    if rest.startswith(CLOSE):
        return call_of(value, begin, len(text) - len(rest) + len(CLOSE))
    why = f"{CLOSE} must follow the call's JSON" if rest else CUT_OFF
    return FoundCall(begin, _after(text, end), why=why)


def _after(text: str, at: int) -> int:
    """Return where a broken call ends: after its closing tag, else before the next call."""
    closing, opening = text.find(CLOSE, at), text.find(OPEN, at)
    if closing >= 0 and (opening < 0 or closing < opening):
        return closing + len(CLOSE)
    return opening if opening >= 0 else len(text)
