"""Every date and number that a text may mean, however it is written, scanning noise included.

Readings, not a parse: 02/04/26 gives 2 April and 4 February, 1,234 gives 1234 and 1.234. Parsers of
dates and numbers (dateparser, babel) return the one reading of a locale, which a document does not
name, and do not expect a scan's letters among digits. Left out: dates without a year, numbers in
words, scripts with digits of their own.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache

# First letters that distinguish the months in English,
# German, French, Spanish, Italian, Portuguese and Dutch.
_MONTHS = (
    "jan ene gen", "feb fev fév", "mar mär mrz maa", "apr abr avr", "may mai mag mei maj",
    "jun juin giu", "jul juil lug", "aug ago aou aoû",
    "sep set", "oct okt out ott", "nov", "dec dez dic déc",
)  # fmt: skip
_MONTH = {prefix: i for i, prefixes in enumerate(_MONTHS, start=1) for prefix in prefixes.split()}

_AT = r"(?<!\d)(?="  # matches may overlap: in `REG 19- 18/01/2018` the date starts at 18
_END = r"(?!\d))"
_SEP = r"\s?[-./]\s?"
_NUMERIC = re.compile(rf"{_AT}(\d{{1,4}}){_SEP}(\d{{1,2}}){_SEP}(\d{{4}}|\d{{1,2}}){_END}")
_YEAR_FIRST = re.compile(rf"{_AT}(\d{{4}}) ?(\d\d) ?(\d\d){_END}")
_YEAR_LAST = re.compile(rf"{_AT}(\d\d) (\d\d) (\d{{4}}){_END}")
_GAP = r"[\s.,/'-]*"
_MONTH_WORD = r"([^\W\d_]{3,12})"
_DAY_MONTH = re.compile(
    rf"{_AT}(\d{{1,2}})(?:st|nd|rd|th|er|º)?{_GAP}(?:of|de)?{_GAP}{_MONTH_WORD}{_GAP}(?:de\s)?(\d{{4}}|\d\d){_END}"
)
_MONTH_DAY = re.compile(
    rf"(?<![^\W_])(?={_MONTH_WORD}{_GAP}(\d{{1,2}})(?:st|nd|rd|th)?[\s.,/'-]+(\d{{4}}|\d\d){_END}"
)
_YEAR_MONTH = re.compile(rf"{_AT}(\d{{4}}){_GAP}{_MONTH_WORD}{_GAP}(\d{{1,2}}){_END}")

_FRACTION = r"(?:\s?[.,]\s?\d{1,2}(?!\d))?"
_GROUPED = re.compile(rf"{_AT}(\d{{1,3}}(?:[.,'’ \u00a0\u202f]\d{{3}})+{_FRACTION})(?!\d))")
_PLAIN = re.compile(r"\d+(?:\s?[.,]\s?\d+)?")

_OCR_DIGITS = str.maketrans("OoQIl|SBZ", "000111582")
_NEAR_DIGIT = re.compile(r"(?<![^\W_])[OoQIl|SBZ]*\d[\dOoQIl|SBZ.,/-]*(?![^\W_])")


@lru_cache(maxsize=256)
def date_readings(text: str) -> frozenset[date]:
    """Return every day `text` may name. A year of two digits is in this century or the last."""
    days: set[date] = set()
    for version in {text, _as_digits(text)}:
        for a, b, c in _NUMERIC.findall(version):
            days |= _days(a, b, c) | _days(c, b, a) | _days(c, a, b)
        for year, month, day in _YEAR_FIRST.findall(version):
            days |= _days(year, month, day)
        for day, month, year in _YEAR_LAST.findall(version):
            days |= _days(year, month, day) | _days(year, day, month)
        for day, month, year in _DAY_MONTH.findall(version):
            days |= _days(year, _month(month), day)
        for month, day, year in _MONTH_DAY.findall(version):
            days |= _days(year, _month(month), day)
        for year, month, day in _YEAR_MONTH.findall(version):
            days |= _days(year, _month(month), day)
    return frozenset(days)


def _days(year: str, month: str, day: str) -> set[date]:
    """Return the day, in both centuries for a two-digit year; nothing if there is no such day."""
    if len(year) not in (2, 4) or max(len(day), len(month)) > 2:
        return set()
    years = [int(year)] if len(year) == 4 else [1900 + int(year), 2000 + int(year)]
    days = set()
    for full in years:
        try:
            days.add(date(full, int(month), int(day)))
        except ValueError:
            continue
    return days


def month_names(month: int) -> tuple[str, ...]:
    """Return the beginnings of the names of `month` (1 to 12), in lower case, in all languages."""
    return tuple(_MONTHS[month - 1].split())


def _month(name: str) -> str:
    """Return the number of the month called `name`, or abbreviated so; "0" if there is none."""
    low = unicodedata.normalize("NFC", name).casefold()
    return str(_MONTH.get(low[:4]) or _MONTH.get(low[:3]) or 0)


@lru_cache(maxsize=256)
def number_readings(text: str) -> frozenset[float]:
    """Return every number `text` may mean, without its sign.

    1.234,50 and 1,234.50 and 1 234.50 are all 1234.5.
    """
    numbers: set[float] = set()
    for version in {text, _as_digits(text)}:
        for written in [*_GROUPED.findall(version), *_PLAIN.findall(version)]:
            numbers |= amount_readings(re.sub(r"\s?([.,])\s?", r"\1", written))
    return frozenset(numbers)


def amount_readings(written: str) -> set[float]:
    """Return what `written` may mean.

    The last mark starts a fraction, or separates thousands where three digits follow it.
    """
    joined = float(re.sub(r"\D", "", written))
    marks = re.findall(r"[.,]", written)
    if not marks:
        return {joined}
    whole, _, last = written.rpartition(marks[-1])
    fraction = float(re.sub(r"\D", "", whole) + "." + re.sub(r"\D", "", last))
    return {fraction, joined} if len(last) == 3 else {fraction}


def _as_digits(text: str) -> str:
    """Return `text` with the letters that scans make of digits (O, l, S, B …) read as digits.

    Only letters inside numbers are replaced.
    """
    return _NEAR_DIGIT.sub(lambda match: match[0].translate(_OCR_DIGITS), text)
