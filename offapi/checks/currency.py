"""Check: a currency is named by its ISO 4217 code.

Left out: signs (£), which several currencies share.
"""

from __future__ import annotations

from typing import Any

from offapi.checks.fields import each
from offapi.checks.verdict import Check

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


def known_currency(field: str) -> Check:
    """A check: the share of the texts at `field` that are codes of currencies, such as EUR."""
    return each(field, _test)


def _test(value: Any) -> str:
    return "" if isinstance(value, str) and value in CODES else f"{value!r} is no ISO 4217 code"
