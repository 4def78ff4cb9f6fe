"""Looking into JSON that others wrote: nothing here raises, whatever the value is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

Json = Any
EPOCH_UNITS = (
    (1e17, 1e9),
    (1e14, 1e6),
    (1e11, 1e3),
    (0.0, 1.0),
)  # numbers from this on count so many to a second


def opened(value: Json) -> Json:
    """`value`, or what is in it where it is a text that holds a JSON object or array."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return value
    return value


def obj(value: Json) -> Mapping[str, Json]:
    """The object that `value` is or holds as text; an empty one for anything else."""
    found = opened(value)
    return found if isinstance(found, dict) else {}


def items(value: Json) -> list[Json]:
    """The array that `value` is or holds as text; an empty one for anything else."""
    found = opened(value)
    return found if isinstance(found, list) else []


def first(record: Mapping[str, Json], *names: str) -> Json:
    """The first of the fields `names` that is there and not null, else None."""
    for name in names:
        value = record.get(name)
        if value is not None:
            return value
    return None


def text(value: Json) -> str | None:
    """`value` where it is a text with something in it, else None."""
    return value if isinstance(value, str) and value.strip() else None


def ident(value: Json) -> str:
    """`value` as an id, "" where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value) or ""


def json_text(value: Json) -> str:
    """`value` as compact JSON, numbers of any size as they were."""
    return msgspec.json.encode(value).decode()


def moment(value: Json) -> str | None:
    """A time as ISO 8601: texts as they stand, numbers as
    seconds (or milli-, micro-, nanoseconds) since 1970.
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
    """Those of `values` that say something."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}
