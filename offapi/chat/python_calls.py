"""Calls written as a Python list: LFM 2.

`<|tool_call_start|>[find(q="x", n=2)]<|tool_call_end|>`: keywords alone, with literals. Left out:
everything else of Python, which is not run but read.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.chat.found_calls import CUT_OFF, FoundCall, checked

OPEN, CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"
_LONGEST = 20_000  # characters; the parser's memory grows with nesting
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class PythonCalls:
    """The reader of calls that are a Python list."""

    name: str = "lfm"

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """See `CallReader.find`."""
        found: list[FoundCall] = []
        at = text.find(OPEN)
        while at >= 0:
            closing = text.find(CLOSE, at)
            if closing < 0:
                return [*found, FoundCall(at, len(text), why=CUT_OFF)]
            found += _listed(text, at, closing)
            at = text.find(OPEN, closing)
        return found


def _listed(text: str, begin: int, closing: int) -> list[FoundCall]:
    end = closing + len(CLOSE)
    source = text[begin + len(OPEN) : closing].strip()
    try:
        with warnings.catch_warnings(action="ignore"):  # about backslashes in its strings
            tree = ast.parse(source[:_LONGEST], mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [FoundCall(begin, end, why="it is not a list such as [find(name='value')]")]
    if not isinstance(tree, ast.List) or not tree.elts:
        return [FoundCall(begin, end, why="calls must be a list such as [find(name='value')]")]
    places = [begin] + [end] * (len(tree.elts) - 1)
    return [_call(node, at, end) for at, node in zip(places, tree.elts, strict=True)]


def _call(node: ast.expr, begin: int, end: int) -> FoundCall:
    if not isinstance(node, ast.Call) or node.args or not isinstance(node.func, ast.Name):
        return FoundCall(begin, end, why="a call must be written as find(name='value')")
    try:
        arguments = {str(each.arg): _value(each.value) for each in node.keywords}
    except (ValueError, RecursionError):
        return FoundCall(begin, end, why="arguments must be literals")
    return checked(FoundCall(begin, end, node.func.id, arguments))


def _value(node: ast.expr) -> Any:
    """Return a literal, of Python's or of JSON's words. Raise ValueError for anything else."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(each) if each else None for each in node.keys]
        return dict(zip(map(str, keys), map(_value, node.values), strict=True))
    return ast.literal_eval(node)
