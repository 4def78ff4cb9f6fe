"""Checks: a date lies within the possible.

Dates are texts as YYYY-MM-DD. Left out: times of day.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from offapi.checks.fields import each
from offapi.checks.verdict import Check
from offapi.errors import ConfigError
from offapi.text.normalise import iso_date


def not_future(field: str, today: date | str | None = None) -> Check:
    """A check: the share of the dates at `field` up to
    `today`; by default, up to the day it is graded on.

    Give `today` for traces that shall be graded the same way tomorrow.
    """
    fixed = None if today is None else _day(today, "today")
    return each(
        field, _test(lambda day: f"{day} is in the future" if day > (fixed or date.today()) else "")
    )


def not_before(field: str, first: date | str) -> Check:
    """A check: the share of the dates at `field` from `first` on."""
    limit = _day(first, "first")
    return each(field, _test(lambda day: f"{day} is before {limit}" if day < limit else ""))


def _test(judge: Callable[[date], str]) -> Callable[[Any], str]:
    def test(value: Any) -> str:
        day = iso_date(value) if isinstance(value, str) else None
        return f"{value!r} is no date as YYYY-MM-DD" if day is None else judge(day)

    return test


def _day(day: date | str, name: str) -> date:
    found = iso_date(day) if isinstance(day, str) else day
    if not isinstance(found, date):
        raise ConfigError(f"{name} = {day!r} is no date.", next_step="Write it as YYYY-MM-DD.")
    return found
