"""Checks of single values: ranges, choices, dates, patterns and currency codes.

Each scores the share of the values at a field that are right. Dates are texts (YYYY-MM-DD),
currencies are ISO 4217 codes. Left out: times of day, and signs (£), which several currencies
share.
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

# Codes in use on 1 January 2026, then those withdrawn since 2015 but
# still found in documents; without metals, test codes and the like.
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
    """Return a check: the share of the numbers at `field` from `low` to `high`, both included."""
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise ConfigError(
            f"low must not exceed high, got in_range({field!r}, {low!r}, {high!r}).",
            next_step="Give low, high or both.",
        )

    def test(value: Any) -> str:
        if not is_number(value):
            return f"{value!r} is not a number"
        if low is not None and value < low:
            return f"{value} is below {low}"
        return f"{value} is above {high}" if high is not None and value > high else ""

    return check_each(field, test)


def one_of(field: str, *allowed: str | float | bool) -> Check:
    """Return a check: the share of the values at `field` that are exactly one of `allowed`."""
    if not allowed:
        raise ConfigError(
            f"one_of({field!r}) has no allowed values.",
            next_step='List them: one_of("unit", "kg", "g").',
        )

    def test(value: Any) -> str:
        same = any(
            value == choice and isinstance(value, bool) == isinstance(choice, bool)
            for choice in allowed
        )
        return "" if same else f"{value!r} is not one of {', '.join(map(repr, allowed))}"

    return check_each(field, test)


def not_future(field: str, today: date | str | None = None) -> Check:
    """Return a check: the share of the dates at `field` that are not after `today`.

    `today` is by default the day of grading. Give it for traces whose grades must not change later.
    """
    fixed = None if today is None else _day(today, "today")

    def test(day: date) -> str:
        return f"{day} is in the future" if day > (fixed or date.today()) else ""

    return check_each(field, _test_date(test))


def not_before(field: str, first: date | str) -> Check:
    """Return a check: the share of the dates at `field` that are not before `first`."""
    limit = _day(first, "first")
    return check_each(
        field, _test_date(lambda day: f"{day} is before {limit}" if day < limit else "")
    )


def _test_date(test_day: Callable[[date], str]) -> Callable[[Any], str]:
    def test(value: Any) -> str:
        day = iso_date(value) if isinstance(value, str) else None
        return f"{value!r} is not a date (YYYY-MM-DD)" if day is None else test_day(day)

    return test


def _day(day: date | str, name: str) -> date:
    parsed = iso_date(day) if isinstance(day, str) else day
    if not isinstance(parsed, date):
        raise ConfigError(
            f"{name} must be a date, got {day!r}.", next_step="Write it as YYYY-MM-DD."
        )
    return parsed


def pattern(field: str, regex: str) -> Check:
    """Return a check: the share of the texts at `field` that `regex` matches from end to end."""
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise ConfigError(
            f"{regex!r} is not a regular expression: {error}.",
            next_step="See the documentation of Python's re module.",
        ) from None

    def test(value: Any) -> str:
        right = isinstance(value, str) and compiled.fullmatch(value) is not None
        return "" if right else f"{value!r} does not match {regex}"

    return check_each(field, test)


def known_currency(field: str) -> Check:
    """Return a check: the share of the texts at `field` that are currency codes, such as EUR."""
    return check_each(field, _test_currency)


def _test_currency(value: Any) -> str:
    return (
        ""
        if isinstance(value, str) and value in CODES
        else f"{value!r} is not an ISO 4217 currency code"
    )
