"""Checks of single values: ranges, choices, dates, patterns and currency codes.

Each scores the share of the values at a field that are right. Dates are texts as YYYY-MM-DD,
currencies ISO 4217 codes. Left out: times of day, and signs (£), which several currencies share.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Any

from offapi.checks.fields import check_each
from offapi.checks.verdict import Check
from offapi.errors import ConfigError
from offapi.text.normalise import is_number, iso_date

# In use on 1 January 2026, then withdrawn since 2015 but still
# found in documents; no metals, test codes and the like.
_CODES = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD
CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP
GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR
KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN
MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD
SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
ANG BGN BYR CUC HRK LTL MRO SLL STD VEF ZWL
"""
CODES = frozenset(_CODES.split())


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

    return check_each(field, test)


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

    return check_each(field, test)


def not_future(field: str, today: date | str | None = None) -> Check:
    """A check: the share of the dates at `field` up to
    `today`; by default, up to the day it is graded on.

    Give `today` for traces that shall be graded the same way tomorrow.
    """
    fixed = None if today is None else _day(today, "today")

    def test(day: date) -> str:
        return f"{day} is in the future" if day > (fixed or date.today()) else ""

    return check_each(field, _test_date(test))


def not_before(field: str, first: date | str) -> Check:
    """A check: the share of the dates at `field` from `first` on."""
    limit = _day(first, "first")
    return check_each(
        field, _test_date(lambda day: f"{day} is before {limit}" if day < limit else "")
    )


def _test_date(test_day: Callable[[date], str]) -> Callable[[Any], str]:
    def test(value: Any) -> str:
        day = iso_date(value) if isinstance(value, str) else None
        return f"{value!r} is no date as YYYY-MM-DD" if day is None else test_day(day)

    return test


def _day(day: date | str, name: str) -> date:
    found = iso_date(day) if isinstance(day, str) else day
    if not isinstance(found, date):
        raise ConfigError(f"{name} = {day!r} is no date.", next_step="Write it as YYYY-MM-DD.")
    return found


def pattern(field: str, regex: str) -> Check:
    """A check: the share of the texts at `field` that `regex` matches from end to end."""
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise ConfigError(
            f"{regex!r} is no regular expression: {error}.", next_step="See Python's module re."
        ) from None

    def test(value: Any) -> str:
        right = isinstance(value, str) and compiled.fullmatch(value) is not None
        return "" if right else f"{value!r} does not match {regex}"

    return check_each(field, test)


def known_currency(field: str) -> Check:
    """A check: the share of the texts at `field` that are codes of currencies, such as EUR."""
    return check_each(field, _test_currency)


def _test_currency(value: Any) -> str:
    return "" if isinstance(value, str) and value in CODES else f"{value!r} is no ISO 4217 code"
