"""Every day that a text may name, however it is written, scanning noise included.

Readings, not a parse: 02/04/26 gives 2 April and 4 February. Parsers of dates (dateparser, babel)
return the one reading of a locale, which a document does not name, and do not expect a scan's
letters among digits. Of a range both ends are named. Texts are folded first
(`offapi.text.fold`). Left out: dates without a year, days in words, other calendars than the
Gregorian with its Japanese, Taiwanese and Thai years.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

from offapi.checks import months
from offapi.checks.numbers import as_digits
from offapi.text.fold import fold_document

# First letters that distinguish the months in English, German, French, Spanish, Italian,
# Portuguese and Dutch, however they are abbreviated; `months` has the whole names.
_MONTHS = (
    "jan ene gen", "feb fev fév", "mar mär mrz maa", "apr abr avr", "may mai mag mei maj",
    "jun juin giu", "jul juil lug", "aug ago aou aoû",
    "sep set", "oct okt out ott", "nov", "dec dez dic déc",
)  # fmt: skip

_AT = r"(?<!\d)(?="  # matches may overlap: in `REG 19- 18/01/2018` the date starts at 18
_END = r"(?!\d))"
_SEP = r"\s?[-./_]\s?"
_NUMERIC = re.compile(rf"{_AT}(\d{{1,4}}){_SEP}(\d{{1,2}}){_SEP}'?(\d{{4}}|\d{{1,2}}){_END}")
_YEAR_FIRST = re.compile(rf"{_AT}(\d{{4}}) ?(\d\d) ?(\d\d){_END}")
_YEAR_LAST = re.compile(rf"{_AT}(\d\d) (\d\d) (\d{{4}}){_END}")
_STAMP = re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?(?!\d)")

_GAP = r"[\s.,/'-]*"
_WORD = r"([A-Za-z\u00aa-\u1fff\u2c00-\uffff]{3,15})"
_YEAR = r"(\d{4}|\d\d)"
_TH = r"(?:st|nd|rd|th|er|re|te|ste|[oaeº°ª])?"
_OF = r"(?:(?:day\s+)?(?:of|del?|d)(?![^\W\d_]))?"
_DAY_MONTH = re.compile(
    rf"{_AT}(\d{{1,2}}){_TH}{_GAP}{_OF}{_GAP}{_WORD}{_GAP}(?:del?\s|of\s)?{_GAP}{_YEAR}{_END}"
)
_MONTH_DAY = re.compile(
    rf"(?<![^\W_])(?={_WORD}{_GAP}(\d{{1,2}}){_TH}[\s.,/'-]+(?:of\s|del?\s)?{_YEAR}{_END}"
)
_YEAR_MONTH = re.compile(
    rf"{_AT}(\d{{4}})(?:ko|\.?\s?(?:[mгр]|gada)(?![^\W\d_]))?{_GAP}{_WORD}{_GAP}(\d{{1,2}}){_END}"
)
_YEAR_DAY = re.compile(rf"{_AT}(\d{{4}})\.?\s?gada\s+(\d{{1,2}})\.?\s+{_WORD})")  # Latvian
_VIETNAMESE = re.compile(
    r"(?<!\d)(\d{1,2})\s*(?:tháng|thg)\s*(\d{1,2})[\s,]*(?:năm\s*)?(\d{4})(?!\d)", re.IGNORECASE
)
_ROMAN = re.compile(
    rf"{_AT}(\d{{1,2}})[\s./-]+(I{{1,3}}|IV|VI{{0,3}}|IX|XI{{0,2}})[\s./-]+(\d{{4}}){_END}"
)
_ROMANS = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
# Wed Mar 04 10:11:12 CET 2026
_MACHINE = re.compile(
    rf"(?<![^\W_]){_WORD}\s+(\d{{1,2}}),?\s+\d{{1,2}}:\d\d(?::\d\d)?(?:\.\d+)?\s+(?:\S{{1,9}}\s+){{0,2}}?(\d{{4}})(?!\d)"
)

# The end of a range names its month or year; what stands before it is read backwards from there.
_TO_WORD = "until|through|thru|till|til|tot|to|and|bis|und|au|al|a|et|en|e|y|i|og|och|t/m|do|по|и"
_TO_WORDS = frozenset(_TO_WORD.split("|"))
_TO = rf"\.?\s?(?:[-,&+/]|\s(?:{_TO_WORD})\s)\s?"
_ONE_TO = re.compile(rf"(?<!\d)(\d{{1,2}}){_TH}{_TO}$")
_DAY_MONTH_TO = re.compile(rf"(?<!\d)(\d{{1,2}}){_TH}{_GAP}{_OF}{_GAP}{_WORD}{_TO}$")
_MONTH_DAY_TO = re.compile(rf"(?<![^\W_]){_WORD}{_GAP}(\d{{1,2}}){_TH}{_TO}$")
_NUMERIC_TO = re.compile(rf"(?<!\d)(\d{{1,2}})[./](\d{{1,2}}){_TO}$")
_LONGEST_START = 40  # characters

_ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "民國": 1911, "民国": 1911}
_EAST_ASIAN = re.compile(
    rf"({'|'.join(_ERAS)})?\s?(?<!\d)(\d{{1,4}}|元)\s?[年년]\s?(\d{{1,2}})\s?[月월]\s?(\d{{1,2}})\s?[日일号號]?"
    r"(?:\s?(?:[-~〜至到]|から|부터)\s?(?:(\d{1,2})\s?[月월]\s?)?(\d{1,2})\s?[日일号號])?"
)
_HAN_NUMERAL = re.compile(r"[〇零一二三四五六七八九十]+(?=\s?[年月日号號])")
_HAN = {numeral: str(i) for i, numeral in enumerate("〇一二三四五六七八九")} | {"零": "0"}
_THAI_DOT = re.compile(r"(?<=[\u0e01-\u0e4e])\.(?=\s?[\u0e01-\u0e4e\d])")


@lru_cache(maxsize=256)
def date_readings(text: str) -> frozenset[date]:
    """Return every day `text` may name. A year of two digits is in this century or the last."""
    days: set[date] = set()
    folded = fold_document(text)
    if not folded.isascii():
        days.update(_east_asian_days(folded))
        folded = _THAI_DOT.sub("", folded)
    for version in {folded, as_digits(folded)}:
        days.update(_numeric_days(version))
        days.update(_worded_days(version))
    return frozenset(days)


def _numeric_days(text: str) -> Iterator[date]:
    for match in _NUMERIC.finditer(text):
        a, b, c = match.groups()
        yield from _days(a, b, c)
        yield from _days(c, b, a)
        yield from _days(c, a, b)
        if len(a) <= 2:
            yield from _starts(text, match.start(), c, (b,), a)
            if begin := _before(_NUMERIC_TO, text, match.start()):
                yield from _days(c, begin[2], begin[1])
                yield from _days(c, begin[1], begin[2])
    for pattern in (_YEAR_FIRST, _STAMP):
        for year, month, day in pattern.findall(text):
            yield from _days(year, month, day)
    for day, month, year in _YEAR_LAST.findall(text):
        yield from _days(year, month, day)
        yield from _days(year, day, month)
    for day, roman, year in _ROMAN.findall(text):
        yield from _days(year, str(_ROMANS.index(roman)), day)


def _worded_days(text: str) -> Iterator[date]:
    for match in _DAY_MONTH.finditer(text):
        day, month, year = match.groups()
        named = month_numbers(month)
        yield from _in_months(year, named, day)
        if named:
            yield from _starts(text, match.start(), year, named, day)
            if begin := _before(_DAY_MONTH_TO, text, match.start()):
                yield from _earlier(year, named, month_numbers(begin[2]), begin[1])
    for match in _MONTH_DAY.finditer(text):
        month, day, year = match.groups()
        named = month_numbers(month)
        yield from _in_months(year, named, day)
        if named and (begin := _before(_MONTH_DAY_TO, text, match.start())):
            yield from _earlier(year, named, month_numbers(begin[1]), begin[2])
    for month, days, year in _MONTH_DAYS.findall(text):
        for day in re.findall(r"\d+", days):
            yield from _in_months(year, month_numbers(month), day)
    for year, month, day in _YEAR_MONTH.findall(text):
        yield from _in_months(year, month_numbers(month), day)
    for month, day, year in _MACHINE.findall(text) if ":" in text else ():
        yield from _in_months(year, month_numbers(month), day)
    for year, day, month in _YEAR_DAY.findall(text) if "gada" in text else ():
        yield from _in_months(year, month_numbers(month), day)
    for day, number, year in _VIETNAMESE.findall(text) if "áng" in text or "thg" in text else ():
        yield from _days(year, number, day)


# March 4-6, 2026 and March 4, 5 and 6, 2026
_MONTH_DAYS = re.compile(
    rf"(?<![^\W_]){_WORD}{_GAP}((?:\d{{1,2}}{_TH}{_TO})+\d{{1,2}}){_TH}[\s.,/'-]+(\d{{4}})(?!\d)"
)


def _before(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str] | None:
    """Return what starts a range that ends at `at`."""
    last = text[max(at - 9, 0) : at].split()[-1:]
    if not last or not (last[0][-1] in "-,&+/." or last[0] in _TO_WORDS):
        return None
    return pattern.search(text, max(at - _LONGEST_START, 0), at)


def _starts(text: str, at: int, year: str, named: tuple[str, ...], day: str) -> Iterator[date]:
    """Yield the earlier days of the same month that stand before its last one: 4, 5 and 6 March."""
    while (begin := _before(_ONE_TO, text, at)) and int(begin[1]) < int(day):
        yield from _in_months(year, named, begin[1])
        at, day = begin.start(), begin[1]


def _earlier(year: str, end: tuple[str, ...], named: tuple[str, ...], day: str) -> Iterator[date]:
    """Yield a range's first day; its year may be the one before its last one's: 28 Dec - 3 Jan."""
    for month in named:
        over = end and int(month) > min(map(int, end))
        yield from _days(str(int(year) - 1).zfill(len(year)) if over else year, month, day)


def _in_months(year: str, named: tuple[str, ...], day: str) -> Iterator[date]:
    for month in named:
        yield from _days(year, month, day)


def _east_asian_days(text: str) -> Iterator[date]:
    text = _HAN_NUMERAL.sub(lambda match: _han_number(match[0]), text)
    for era, year, month, day, last_month, last_day in _EAST_ASIAN.findall(text):
        if era or year == "元":
            year = str(_ERAS.get(era, 0) + (1 if year == "元" else int(year)))
        yield from _days(year, month, day)
        if last_day:
            yield from _days(year, last_month or month, last_day)


def _han_number(numeral: str) -> str:
    """Return 二〇二六 as 2026 and 二十一 as 21."""
    tens, ten, ones = numeral.partition("十")
    if not ten:
        return "".join(_HAN[char] for char in numeral)
    return str(10 * int(_HAN.get(tens, "1")) + int(_HAN.get(ones, "0")))


def _days(year: str, month: str, day: str) -> Iterator[date]:
    """Yield the day, in both centuries for a two-digit year; nothing if there is no such day."""
    if len(year) not in (2, 4) or max(len(day), len(month)) > 2:
        return
    years = [int(year)] if len(year) == 4 else [1900 + int(year), 2000 + int(year)]
    for full in years:
        try:
            yield date(full - 543 if full > _BUDDHIST else full, int(month), int(day))
        except ValueError:
            continue


_BUDDHIST = 2400  # later years are Thai ones


def month_beginnings(month: int) -> tuple[str, ...]:
    """Return how `month` (1 to 12) begins in the most frequent languages, in lower case."""
    return tuple(_MONTHS[month - 1].split())


@lru_cache(maxsize=1024)
def month_numbers(name: str) -> tuple[str, ...]:
    """Return the numbers of the months called `name`, or abbreviated so; () if there is none.

    Two languages may call two months by one name (listopad).
    """
    low = unicodedata.normalize("NFC", name.casefold())
    names = _names()
    found = names.get(low) or names.get(_plain(low)) or names.get(low.removeprefix("ב"))
    if found:
        return found
    beginnings = _beginnings()
    number = beginnings.get(low[:4]) or beginnings.get(low[:3])
    return (number,) if number else ()


@lru_cache(maxsize=1)
def _beginnings() -> dict[str, str]:
    numbered = enumerate(_MONTHS, start=1)
    return {beginning: str(i) for i, names in numbered for beginning in names.split()}


@lru_cache(maxsize=1)
def _names() -> dict[str, tuple[str, ...]]:
    """Return the months of each whole name, with and without its accents."""
    found: dict[str, tuple[str, ...]] = {}
    for number, names in enumerate(months.NAMES, start=1):
        for name in names.split():
            for spelled in {name, _plain(name)}:
                found[spelled] = (*found.get(spelled, ()), str(number))
    return found


def _plain(word: str) -> str:
    """Return `word` without accents, as machines and capitals have it."""
    parts = unicodedata.normalize("NFD", word)
    return "".join(char for char in parts if unicodedata.combining(char) < 200)
