"""The numbers and dates that a document prints, written as the task writes them.

Readings are those of `offapi.checks.numbers` and `dates`, so a check never calls one invented.
Left out: which of several readings is meant, which is the model's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from offapi.checks.dates import date_readings
from offapi.checks.places import printed_numbers
from offapi.checks.schema import schema_validator
from offapi.checks.schema_types import types_of
from offapi.task.answer_text import spell_value

_LARGEST = 1e15  # longer runs of digits are codes, which no float holds


def number_texts(document: str, part: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    """Return the spellings of the printed numbers that fit the schema `part`, smallest first."""
    values: set[float] = set()
    for _, readings, minus in printed_numbers(document):
        values |= readings
        values |= {-number for number in readings if minus}
    whole = types_of(part, root) == {"integer"}
    fit = fitting(sorted(value for value in values if abs(value) < _LARGEST), part, root)
    return list(dict.fromkeys(spell_value(value, amount=True, whole=whole) for value in fit))


def date_texts(document: str, part: Mapping[str, Any], root: Mapping[str, Any]) -> list[str]:
    """Return the days that the document may name and that fit the schema `part`, as JSON."""
    days = [day.isoformat() for day in sorted(date_readings(document))]
    return [spell_value(day, amount=False) for day in fitting(days, part, root)]


def fitting(values: Iterable[Any], part: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    """Return the values that fit `part` of the schema `root`."""
    shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
    valid = schema_validator({**shared, **part}).is_valid
    return [value for value in values if valid(value)]
