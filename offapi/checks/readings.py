"""Every date and number a text may mean, however it writes them, scanning noise included.

Readings, not a parse: 02/04/26 gives 2 April and 4 February, 1,234 gives 1234 and 1.234. Date and
number parsers (dateparser, babel) return the one reading of a locale, which a document does not
name, and do not expect a scan's letters among digits.
Left out: dates without a year, numbers in words, scripts with digits of their own.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache

# First letters that tell the months apart in English,
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
    """Every day `text` may name. A year of two digits is of this century or the last."""
    found: set[date] = set()
    for version in {text, _as_digits(text)}:
        for a, b, c in _NUMERIC.findall(version):
            found |= _days(a, b, c) | _days(c, b, a) | _days(c, a, b)
        for year, month, day in _YEAR_FIRST.findall(version):
            found |= _days(year, month, day)
        for day, month, year in _YEAR_LAST.findall(version):
            found |= _days(year, month, day) | _days(year, day, month)
        for day, month, year in _DAY_MONTH.findall(version):
            found |= _days(year, _month(month), day)
        for month, day, year in _MONTH_DAY.findall(version):
            found |= _days(year, _month(month), day)
        for year, month, day in _YEAR_MONTH.findall(version):
            found |= _days(year, _month(month), day)
    return frozenset(found)


def _days(year: str, month: str, day: str) -> set[date]:
    """The day, in either century where the year has two digits; none where there is no such day."""
    if len(year) not in (2, 4) or max(len(day), len(month)) > 2:
        return set()
    years = [int(year)] if len(year) == 4 else [1900 + int(year), 2000 + int(year)]
    found = set()
    for full in years:
        try:
            found.add(date(full, int(month), int(day)))
        except ValueError:
            continue
    return found


def month_names(month: int) -> tuple[str, ...]:
    """What the names of `month`, 1 to 12, begin with in the languages known here, lower-case."""
    return tuple(_MONTHS[month - 1].split())


def _month(name: str) -> str:
    """The number of the month called `name` or shortened so, "0" where there is none."""
    low = unicodedata.normalize("NFC", name).casefold()
    return str(_MONTH.get(low[:4]) or _MONTH.get(low[:3]) or 0)


@lru_cache(maxsize=256)
def number_readings(text: str) -> frozenset[float]:
    """Every number `text` may mean, without its sign:
    1.234,50 and 1,234.50 and 1 234.50 are 1234.5.
    """
    found: set[float] = set()
    for version in {text, _as_digits(text)}:
        for written in [*_GROUPED.findall(version), *_PLAIN.findall(version)]:
            found |= amount_readings(re.sub(r"\s?([.,])\s?", r"\1", written))
    return frozenset(found)


def amount_readings(written: str) -> set[float]:
    """What `written` may mean: the last mark starts a
    fraction, or thousands where three digits follow it.
    """
    joined = float(re.sub(r"\D", "", written))
    marks = re.findall(r"[.,]", written)
    if not marks:
        return {joined}
    whole, _, last = written.rpartition(marks[-1])
    fraction = float(re.sub(r"\D", "", whole) + "." + re.sub(r"\D", "", last))
    return {fraction, joined} if len(last) == 3 else {fraction}


def _as_digits(text: str) -> str:
    """`text` with the letters that scans make of digits (O,
    l, S, B …) read as digits where they stand in numbers.
    """
    return _NEAR_DIGIT.sub(lambda found: found[0].translate(_OCR_DIGITS), text)
