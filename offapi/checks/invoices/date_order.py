"""Check: a numeric date is read in the order of day and month that its document uses.

02/04/2026 may be 2 April or 4 February, and `in_source` accepts both. Here the document decides: by
its other dates, else by an address in the United States (month first), else by `default`. Left out:
which of several dates is the right one.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from functools import lru_cache
from typing import Literal

from offapi.checks.fields import value_at
from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.text.fold import fold_document
from offapi.text.normalise import iso_date

Order = Literal["day", "month", "year"]  # what comes first

_PARTS = r"\s?[-./]\s?"
_DATE = re.compile(rf"(?<!\d)(?=(\d{{1,4}}){_PARTS}(\d{{1,2}}){_PARTS}(\d{{4}}|\d{{1,2}})(?!\d))")
# Where dates may be: searching everywhere is slow.
_RUN = re.compile(r"\d{1,4}[ ]?[-./][-\d./ ]*\d")
_ZIP_CODE = re.compile(r"[A-Z][A-Z],? {1,2}\d{5}(?!\d)")
_PHONE = re.compile(r"\(\d{3}\) ?\d{3}-\d{4}(?!\d)")
_STATES = (
    " AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ"
    " NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY "
)


def date_order(field: str, default: Order = "day") -> Check:
    """Return a check: 0 when `field` is a numeric date read in the wrong order, else 1."""

    @needs("object")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        value = value_at(answer.value, field)
        day = iso_date(value) if isinstance(value, str) else None
        possible, meant = _readings(document, default)
        if day not in possible:
            return Verdict(1.0, "no numeric date to check")
        if day in meant:
            return Verdict(1.0, f"{field} is in the document's order of day and month")
        return Verdict(0.0, f"{field} is not in the document's order of day and month: {day}")

    return check


@lru_cache(maxsize=256)
def _readings(document: str, default: Order) -> tuple[frozenset[date], frozenset[date]]:
    """Return the days that the numeric dates may mean, and those they mean in the document's order.

    A date that does not allow the document's order keeps all its readings.
    """
    document = fold_document(document)
    runs = _RUN.finditer(document)
    dates = [
        _days(*parts) for run in runs for parts in _DATE.findall(document, run.start(), run.end())
    ]
    order = _order(document, dates, default)
    meant: set[date] = set()
    for days in dates:
        meant.update([days[order]] if order in days else days.values())
    return frozenset(day for days in dates for day in days.values()), frozenset(meant)


def _order(document: str, dates: list[dict[Order, date]], default: Order) -> Order:
    certain = Counter(next(iter(days)) for days in dates if len(days) == 1 and "year" not in days)
    if certain:
        return certain.most_common(1)[0][0]
    return "month" if _in_the_united_states(document) else default


def _in_the_united_states(document: str) -> bool:
    for code in _ZIP_CODE.finditer(document):
        if (
            f" {code[0][:2]} " in _STATES
            and not document[max(code.start() - 1, 0) : code.start()].isalnum()
        ):
            return True
    return _PHONE.search(document) is not None


def _days(first: str, second: str, third: str) -> dict[Order, date]:
    """Return what three numbers may mean, by what comes first.

    A year of four digits leaves fewer choices.
    """
    days: dict[Order, date] = {}
    if len(first) == 4:
        _put(days, "year", first, second, third)
    elif len(first) <= 2:
        _put(days, "day", third, second, first)
        _put(days, "month", third, first, second)
        if len(third) == 2 and len(first) == 2:
            _put(days, "year", first, second, third)
    return days


def _put(days: dict[Order, date], order: Order, year: str, month: str, day: str) -> None:
    if len(year) in (2, 4) and len(day) <= 2:
        try:
            days[order] = date(
                int(year) if len(year) == 4 else 2000 + int(year), int(month), int(day)
            )
        except ValueError:
            return
