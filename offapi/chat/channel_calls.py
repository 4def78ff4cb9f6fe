"""Calls as messages to a function, in a channel: gpt-oss.

`<|channel|>commentary to=functions.find <|constrain|>json<|message|>{"q": "x"}<|call|>`; the
recipient may stand before the channel. Left out: thinking and the answer, which are messages to no
one (`offapi.chat.channels`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.chat.found_calls import CUT_OFF, FoundCall, NotJson, call_of, read_json

# From a message's beginning, which the prompt holds for the first, to its content.
_HEAD = re.compile(
    r"(?:^|<\|start\|>assistant)(?:(?!<\|message\|>|<\|start\|>).)*? ?to=functions\.([\w.-]+)"
    r"(?:(?!<\|message\|>|<\|start\|>).)*<\|message\|>",
    re.DOTALL,
)
_END = re.compile(r"\s*(?:<\|call\|>|<\|end\|>|$)")
_CUT = re.compile(
    r"(?:^|<\|start\|>assistant)(?:(?!<\|message\|>).)*? ?to=functions\.(?:(?!<\|message\|>).)*$",
    re.DOTALL,
)


@dataclass(frozen=True)
class ChannelCalls:
    """The reader of calls in channels."""

    name: str = "gpt-oss"

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """See `CallReader.find`."""
        found: list[FoundCall] = []
        at = 0
        while head := _HEAD.search(text, at):
            found.append(_one(text, head))
            at = found[-1].end
        cut = _CUT.search(text, at)
        return [*found, FoundCall(cut.start(), len(text), why=CUT_OFF)] if cut else found


def _one(text: str, head: re.Match[str]) -> FoundCall:
    following = text.find("<|start|>", head.end())
    stop = following if following >= 0 else len(text)
    try:
        arguments, end = read_json(text[:stop], head.end())
    except NotJson as error:
        return FoundCall(head.start(), stop, why=str(error))
    closed = _END.match(text, end)
    if closed is None:
        return FoundCall(head.start(), stop, why="nothing may follow the arguments")
    return call_of({"name": head[1], "arguments": arguments}, head.start(), closed.end())
