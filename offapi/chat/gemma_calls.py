"""Calls in Gemma's own notation: Gemma 4 and FunctionGemma.

`<|tool_call>call:find{q:<|"|>x<|"|>,n:2}<tool_call|>`: keys are bare, strings stand between quotes
that are tokens, and the rest is as in JSON. FunctionGemma has other tokens. Left out: strings that
hold such a quote, which no text can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.chat.found_calls import CUT_OFF, FoundCall, checked

_NAME = re.compile(r"\s*call:([\w.-]+)\s*(?=\{)")
_BARE = re.compile(r"[^,{}\[\]]*")
_DEEPEST = 64
_WORDS = {"true": True, "false": False, "null": None, "None": None, "True": True, "False": False}


@dataclass(frozen=True)
class GemmaCalls:
    """The reader of calls between `open` and `close`, whose strings stand between `quote`."""

    name: str
    open: str
    close: str
    quote: str

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """See `CallReader.find`."""
        found: list[FoundCall] = []
        at = text.find(self.open)
        while at >= 0:
            found.append(self._one(text, at))
            at = text.find(self.open, found[-1].end)
        return found

    def _one(self, text: str, begin: int) -> FoundCall:
        closing = text.find(self.close, begin)
        following = text.find(self.open, begin + len(self.open))
        if closing < 0 or 0 <= following < closing:
            return FoundCall(begin, following if following >= 0 else len(text), why=CUT_OFF)
        end = closing + len(self.close)
        named = _NAME.match(text, begin + len(self.open))
        if named is None:
            return FoundCall(begin, end, why=f"call:NAME{{...}} must follow {self.open}")
        values = _Values(text[:closing], self.quote)
        try:
            arguments, at = values.value(named.end(), 0)
        except ValueError as error:
            return FoundCall(begin, end, why=str(error))
        if text[at:closing].strip():
            return FoundCall(begin, end, why="nothing may follow the arguments")
        return checked(FoundCall(begin, end, named[1], arguments))


GEMMA_4 = GemmaCalls("gemma", "<|tool_call>", "<tool_call|>", '<|"|>')
FUNCTION_GEMMA = GemmaCalls(
    "functiongemma", "<start_function_call>", "<end_function_call>", "<escape>"
)


@dataclass(frozen=True)
class _Values:
    """Values in the notation. Each method returns the value at a place, and where it ends."""

    text: str
    quote: str

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Return any value. Raise ValueError for none."""
        if depth > _DEEPEST:
            raise ValueError("the arguments are nested too deeply")
        if self.text.startswith("{", at):
            return self.members(at + 1, depth)
        if self.text.startswith("[", at):
            return self.items(at + 1, depth)
        if self.text.startswith(self.quote, at):
            return self.string(at)
        bare = _BARE.match(self.text, at)
        assert bare is not None  # it matches nothing, too
        return _bare(bare[0].strip()), bare.end()

    def string(self, at: int) -> tuple[str, int]:
        begin = at + len(self.quote)
        end = self.text.find(self.quote, begin)
        if end < 0:
            raise ValueError(f"a string must end with {self.quote}")
        return self.text[begin:end], end + len(self.quote)

    def members(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        while not self.text.startswith("}", at):
            if self.text.startswith(self.quote, at):
                key, at = self.string(at)
            else:
                end = self.text.find(":", at)
                key, at = self.text[at:end].strip(), end
            if at < 0 or not self.text.startswith(":", at):
                raise ValueError("an argument must be written as name:value")
            members[key], at = self.value(at + 1, depth + 1)
            at = self._comma(at, "}")
        return members, at + 1

    def items(self, at: int, depth: int) -> tuple[list[Any], int]:
        items = []
        while not self.text.startswith("]", at):
            item, at = self.value(at, depth + 1)
            items.append(item)
            at = self._comma(at, "]")
        return items, at + 1

    def _comma(self, at: int, end: str) -> int:
        if self.text.startswith(",", at):
            return at + 1
        if self.text.startswith(end, at):
            return at
        raise ValueError(f"a comma or {end} must follow a value")


def _bare(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise ValueError(f"{text[:40]!r} is not a value")
