"""Write Python values as source that `ruff format` leaves as it is.

A value takes one line where it fits, else each part has a line of its own. Left out: comments,
and code beyond literals and calls given as text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 88  # of ruff's default
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Code(str):
    """Source to be written as it is."""

    __slots__ = ()


@dataclass(frozen=True)
class PythonCall:
    """A call: its function's name, and its arguments by keyword, or by position under ""."""

    name: str
    arguments: Sequence[tuple[str, Any]]


def write_value(value: Any, *, depth: int = 0, before: str = "", after: str = "") -> str:
    """Return `value` as source at an indentation of `depth`, between two texts on its lines."""
    line = _on_one_line(value)
    if "\n" not in line and _width("    " * depth + before + line + after) <= WIDTH:
        return line
    opening, parts, closing = _parts(value)
    if not parts:
        return line
    inner = "    " * (depth + 1)
    lines = [
        f"{inner}{name}{write_value(part, depth=depth + 1, before=name, after=',')},\n"
        for name, part in parts
    ]
    return f"{opening}\n{''.join(lines)}{'    ' * depth}{closing}"


def write_text(text: str) -> str:
    """Return a text as a literal: lines in triple quotes, one line in the quotes that fit."""
    if "\n" in text and all(char == "\n" or char.isprintable() for char in text):
        escaped = text.replace("\\", "\\\\").replace('"""', '\\"""')
        if escaped.endswith('"'):
            escaped = f'{escaped[:-1]}\\"'
        return f'"""\\\n{escaped}"""'
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(char, quote) for char in text) + quote


def _escaped(char: str, quote: str) -> str:
    if char == quote:
        return f"\\{char}"
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return char.encode("unicode_escape").decode()


def _on_one_line(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        return write_text(value)
    opening, parts, closing = _parts(value)
    if not opening:
        return repr(value)
    inside = ", ".join(f"{name}{_on_one_line(part)}" for name, part in parts)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return f"{opening}{inside}{comma}{closing}"


def _parts(value: Any) -> tuple[str, list[tuple[str, Any]], str]:
    """Return what opens a collection or call, its parts with what stands before each, its end."""
    if isinstance(value, Mapping):
        return "{", [(f"{write_text(str(name))}: ", part) for name, part in value.items()], "}"
    if isinstance(value, PythonCall):
        named = [(f"{name}=" if name else "", part) for name, part in value.arguments]
        return f"{value.name}(", named, ")"
    if isinstance(value, tuple):
        return "(", [("", part) for part in value], ")"
    if isinstance(value, list):
        return "[", [("", part) for part in value], "]"
    return "", [], ""


def _width(line: str) -> int:
    """Return the columns that a line takes: two for a wide character, none for a combining one."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in line)
    return len(line) + wide - sum(map(bool, map(unicodedata.combining, line)))
