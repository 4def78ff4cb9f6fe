"""A table of words, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class Table:
    """Rows of text under a head, which is empty where each row names itself in its first cell."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def text(value: Any) -> str:
    """A value as a person reads it: strings as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "—" if value is None else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            flat(value, f"{prefix}{name}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{name}": value}
        )
    return found


def differing(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names whose values are not the same in all."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        name
        for name in names
        if any(column.get(name) != columns[0].get(name) for column in columns)
    ]
