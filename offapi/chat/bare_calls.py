"""Calls as bare JSON, which is the whole turn: Llama 3.1, 3.2 and 3.3.

`{"name": "find", "parameters": {"q": "x"}}`, after `<|python_tag|>` or not; semicolons separate
several. An answer may be JSON too, so an object is a call where these are its only keys, or where
it begins with the name of a tool. Left out: calls written as Python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.chat.found_calls import FoundCall, NotJson, call_of, read_json

TAG = "<|python_tag|>"
_NAMED = re.compile(r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*"?)')
_KEYS = ({"name", "parameters"}, {"type", "name", "parameters"})


@dataclass(frozen=True)
class BareCalls:
    """The reader of calls that are bare JSON."""

    name: str = "llama"

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """See `CallReader.find`."""
        names = {(tool.get("function") or tool).get("name") for tool in tools}
        begin = len(text) - len(text.lstrip())
        tagged = text.startswith(TAG, begin)
        at = begin + len(TAG) if tagged else begin
        found: list[FoundCall] = []
        while True:
            at += len(text[at:]) - len(text[at:].lstrip(" \n;"))
            call = _one(text, at, tagged or _meant(text, at, names))
            if call is None:
                return found
            first = begin if not found else call.begin
            found.append(FoundCall(first, call.end, call.name, call.arguments, call.why))
            at = call.end
            if call.why:
                return found


def _meant(text: str, at: int, names: set[Any]) -> bool:
    """Return whether what stands at `at` begins as a call of one of `names`."""
    named = _NAMED.match(text, at)
    return named is not None and named[1].strip('"') in names


def _one(text: str, begin: int, meant: bool) -> FoundCall | None:
    """Return the call at `begin`; None where what stands there is not meant as one."""
    if begin >= len(text) or not (meant or text.startswith("{", begin)):
        return None
    try:
        value, end = read_json(text, begin)
    except NotJson as error:
        return FoundCall(begin, len(text), why=str(error)) if meant else None
    if meant or (isinstance(value, dict) and set(value) in _KEYS):
        return call_of(value, begin, end, key="parameters")
    return None
