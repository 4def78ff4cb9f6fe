"""A table of text, for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class Table:
    """Rows of text under a head. Without a head, the first cell of a row is its name."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def text(value: Any) -> str:
    """Return a value as text: strings as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "—" if value is None else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested objects into dotted names."""
    dotted: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            dotted |= flat(value, f"{prefix}{name}.")
        else:
            dotted[f"{prefix}{name}"] = value
    return dotted


def differing(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names whose values are not the same in all columns."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [name for name in names if _differ(columns, name)]


def _differ(columns: Sequence[Mapping[str, Any]], name: str) -> bool:
    first = columns[0].get(name)
    return any(column.get(name) != first for column in columns)
