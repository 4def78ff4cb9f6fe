"""Check: an all-number date is read in the order its document uses, not the other one.

02/04/2026 is found in a document whether read as April or February; `in_source` takes both.
Here the document decides: by its other dates, else by an address in the United States, where
alone months come first, else by `default`. Left out: which of several dates is the right one.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from functools import lru_cache
from typing import Literal

from offapi.checks.gold import iso_date
from offapi.checks.verdict import Answer, Check, Context, Verdict

Order = Literal["day", "month", "year"]  # what comes first

_PARTS = r"\s?[-./]\s?"
_DATE = re.compile(rf"(?<!\d)(?=(\d{{1,4}}){_PARTS}(\d{{1,2}}){_PARTS}(\d{{4}}|\d{{1,2}})(?!\d))")
_STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
)
_UNITED_STATES = re.compile(rf"\b(?:{_STATES}),?\s+\d{{5}}(?:-\d{{4}})?\b|\(\d{{3}}\) ?\d{{3}}-\d{{4}}\b")


def date_order(field: str, default: Order = "day") -> Check:
    """A check: 0 when `field` is an all-number date of the document read in the wrong order, else 1."""

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        value = answer.value.get(field)
        day = iso_date(value) if isinstance(value, str) else None
        if day is None or day not in _readings(document, default, every=True):
            return Verdict(1.0, "no date of numbers to judge")
        if day in _readings(document, default, every=False):
            return Verdict(1.0, f"{field} is read in the document's order")
        return Verdict(0.0, f"{field} is read against the document's order: {day}")

    return check


@lru_cache(maxsize=512)
def _readings(document: str, default: Order, every: bool) -> frozenset[date]:
    """The days the document's dates of numbers mean: in `every` order, or in the one it uses where they allow it."""
    read = [_days(*parts) for parts in _DATE.findall(document)]
    if every:
        return frozenset(day for days in read for day in days.values())
    order = _order(document, read, default)
    return frozenset(day for days in read for day in ([days[order]] if order in days else days.values()))


def _order(document: str, read: list[dict[Order, date]], default: Order) -> Order:
    told = Counter(next(iter(days)) for days in read if len(days) == 1 and "year" not in days)
    if told:
        return told.most_common(1)[0][0]
    return "month" if _UNITED_STATES.search(document) else default


def _days(first: str, second: str, third: str) -> dict[Order, date]:
    """What three numbers may mean, by what comes first; a year of four digits leaves fewer choices."""
    found: dict[Order, date] = {}
    if len(first) == 4:
        _put(found, "year", first, second, third)
    elif len(first) <= 2:
        _put(found, "day", third, second, first)
        _put(found, "month", third, first, second)
        if len(third) == 2 and len(first) == 2:
            _put(found, "year", first, second, third)
    return found


def _put(found: dict[Order, date], order: Order, year: str, month: str, day: str) -> None:
    if len(year) in (2, 4) and len(day) <= 2:
        try:
            found[order] = date(int(year) if len(year) == 4 else 2000 + int(year), int(month), int(day))
        except ValueError:
            return
