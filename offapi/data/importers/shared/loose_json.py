"""Read JSON that other programs wrote: nothing here raises, whatever the value is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

Json = Any
# (least number, units per second)
EPOCH_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (0.0, 1.0))


def opened(value: Json) -> Json:
    """Return `value`, or its content where it is a text that contains a JSON object or array."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return value
    return value


def obj(value: Json) -> Mapping[str, Json]:
    """Return the object that `value` is or contains as text; an empty one for anything else."""
    content = opened(value)
    return content if isinstance(content, dict) else {}


def items(value: Json) -> list[Json]:
    """Return the array that `value` is or contains as text; an empty one for anything else."""
    content = opened(value)
    return content if isinstance(content, list) else []


def first(record: Mapping[str, Json], *names: str) -> Json:
    """Return the first of the fields `names` that is present and not null, else None."""
    for name in names:
        value = record.get(name)
        if value is not None:
            return value
    return None


def text(value: Json) -> str | None:
    """Return `value` where it is a text that is not blank, else None."""
    return value if isinstance(value, str) and value.strip() else None


def ident(value: Json) -> str:
    """Return `value` as an id, or "" where it cannot be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value) or ""


def json_text(value: Json) -> str:
    """Return `value` as compact JSON, with numbers of any size unchanged."""
    return msgspec.json.encode(value).decode()


def moment(value: Json) -> str | None:
    """Return a time as ISO 8601.

    Texts stay unchanged; numbers are seconds (or milli-, micro-, nanoseconds) since 1970.
    """
    if isinstance(value, str) and not value.isdecimal():
        return text(value)
    try:
        number = float(value)
        unit = next(unit for least, unit in EPOCH_UNITS if number >= least)
        return datetime.fromtimestamp(number / unit, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError, StopIteration):
        return None


def known(**values: Json) -> dict[str, Json]:
    """Return those of `values` that are not empty."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}
