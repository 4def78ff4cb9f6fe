"""Checks: a value lies within the possible, or is one of a few."""

from __future__ import annotations

from typing import Any

from offapi.checks.fields import each
from offapi.checks.verdict import Check
from offapi.errors import ConfigError
from offapi.text.normalise import is_number


def in_range(field: str, low: float | None = None, high: float | None = None) -> Check:
    """A check: the share of the numbers at `field` from `low` to `high`, both included."""
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise ConfigError(
            f"in_range({field!r}) has the limits {low!r} and {high!r}.",
            next_step="Give low, high, or both.",
        )

    def test(value: Any) -> str:
        if not is_number(value):
            return f"{value!r} is no number"
        if low is not None and value < low:
            return f"{value} is below {low}"
        return f"{value} is above {high}" if high is not None and value > high else ""

    return each(field, test)


def one_of(field: str, *allowed: str | float | bool) -> Check:
    """A check: the share of the values at `field` that are among `allowed`, letter for letter."""
    if not allowed:
        raise ConfigError(
            f"one_of({field!r}) allows no value.",
            next_step='Write them out: one_of("unit", "kg", "g").',
        )

    def test(value: Any) -> str:
        same = any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed
        )
        return "" if same else f"{value!r} is none of {', '.join(map(repr, allowed))}"

    return each(field, test)
