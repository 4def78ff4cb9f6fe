"""Whether a number or date is in a text in one of its usual spellings, letter for letter.

Much faster than `numbers` and `dates`, and never more generous: what is found here, a reading gives
too. Left out: every spelling that takes a pattern to recognise, so a miss proves nothing.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

_LONGER = re.compile(r"\d")
_FRACTION = re.compile(r"\d|\s?[.,]\s?\d|'\d")


def number_stands(value: float, text: str) -> bool:
    """Return whether `value`, ignoring its sign, is printed in `text`.

    Spellings: 128.50 or 128,50, 1,234.50 or 1.234,50, 128.
    """
    return any(
        spelling in text and _stands(spelling, text, continued)
        for spelling, continued in _amounts(abs(value))
    )


def date_stands(day: date, text: str) -> bool:
    """Return whether `day` is printed in `text` in numbers, in any order.

    Spellings: 2026-04-02, 02/04/2026, 4.2.26.
    """
    return any(spelling in text and _stands(spelling, text, _LONGER) for spelling in _days(day))


@lru_cache(maxsize=4096)
def _amounts(value: float) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the spellings of `value`, each with the pattern of what would continue it.

    With two decimals and either mark, or as a whole number.
    """
    if not value < 1e12 or abs(round(value, 2) - value) > 1e-9:
        return ()
    english = [f"{value:.2f}", f"{value:,.2f}"]
    swapped = [spelling.translate(_SWAPPED) for spelling in english]
    spelled = dict.fromkeys([*english, *swapped], _LONGER)
    if value == int(value):
        spelled[str(int(value))] = _FRACTION
    return tuple(spelled.items())


_SWAPPED = str.maketrans(",.", ".,")


@lru_cache(maxsize=4096)
def _days(day: date) -> tuple[str, ...]:
    year = f"{day.year:04}"
    orders = []
    for month, number in ((f"{day.month:02}", f"{day.day:02}"), (str(day.month), str(day.day))):
        orders += [(year, month, number), (number, month, year), (month, number, year)]
        orders += [(number, month, year[2:]), (month, number, year[2:])]
    return tuple(dict.fromkeys(mark.join(order) for mark in "-/." for order in orders))


def _stands(spelling: str, text: str, continued: re.Pattern[str]) -> bool:
    """Return whether `spelling` is in `text` where no number continues on either side.

    `continued` matches what would continue it to the right.
    """
    at = text.find(spelling)
    while at >= 0:
        if not _continues(text, at) and not continued.match(text, at + len(spelling)):
            return True
        at = text.find(spelling, at + 1)
    return False


def _continues(text: str, at: int) -> bool:
    """Return whether `at` is inside a number, or behind the mark of a fraction (.50)."""
    last = text[at - 1 : at]
    if last.isdigit():
        return True
    before = text[max(at - 4, 0) : at].rstrip()
    if before[-1:] not in _MARKS:
        return False
    left = before[:-1]
    return left.rstrip()[-1:].isdigit() or (
        last in (".", ",") and not left[-1:].isalnum() and left[-1:] not in _MARKS
    )


_MARKS = (".", ",", "'")
