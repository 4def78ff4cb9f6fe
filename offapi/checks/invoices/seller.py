"""Checks: the name is the seller's, as invoices, receipts and letters state it in their header.

A document also prints the shop's brand, its branch and its buyer. The seller is a whole line above
them; where a header line ends in a legal form (Ltd, GmbH, Sdn Bhd), that company was paid. Left
out: names printed only in a logo or at the foot.
"""

from __future__ import annotations

import re
from functools import lru_cache

from offapi.checks.fields import value_at
from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.text.normalise import bare

HEADER_LINES = 8
LINES_OF_A_NAME = 4  # narrow paper breaks names
LONGEST_NAME = 120  # characters
_LOOKED_AT = 8000  # characters

# The buyer, or what was bought, follows such a line.
_HEADING = re.compile(
    r"invoice|receipt|bill to|sold"
    r" to|customer|client|fatura|factura|facture|fattura|factuur|rechnung|quittung"
)
_LEGAL = re.compile(
    r"(?<![^\W_])(?:(?i:ltd|limited|llc|llp|plc|incorporated|inc|corporation|corp|gmbh|ohg|ltda|lda|s\.?à?a?\.?r\.?l"
    r"|s\.r\.l|srl|spa|s\.p\.a|aps|pty|pte|bhd|s\."
    r" ?[al]|[bn]\.v|a/s|s/b)|AG|KG|SE|S[AL]|SAS|BV|NV|AB|AS|OY|Oy)\.?$"
)
_LONGEST_FORM = 20  # characters looked at; "incorporated." is the longest
_IN_BRACKETS = re.compile(r"\s*\([^()]*\)$")
_EDGES = " .,:;*#=-\t"


def in_header(field: str) -> Check:
    """Return a check: 1 when `field` is a line of the document's header, or a few joined lines.

    Codes at the end of the line are ignored. It is also 1 where the field is null.
    """

    @needs("object")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        return _verdict(field, answer, _lines(document), "not a line of the header")

    return check


def legal_name(field: str) -> Check:
    """Return a check: 1 when `field` is the company that the header names by its legal form.

    It is also 1 when the header contains no legal form.
    """

    @needs("object")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        names = _companies(document)
        if answer.value is not None and not names:
            return Verdict(1.0, "the header contains no legal form")
        return _verdict(field, answer, names, "not the company that the header names")

    return check


def _verdict(field: str, answer: Answer, names: frozenset[str], wrong: str) -> Verdict:
    if answer.value is None:
        return Verdict(0.0, answer.error)
    value = value_at(answer.value, field)
    if value is None:
        return Verdict(1.0, f"{field} has no value")
    if isinstance(value, str) and bare(value) in names:
        return Verdict(1.0, f"{field} is in the header")
    return Verdict(0.0, f"{field} is {wrong}: {value!r}")


def header(document: str) -> list[str]:
    """Return the first lines of `document`, up to a heading such as TAX INVOICE.

    Headings at the very top are skipped.
    """
    lines: list[str] = []
    for line in document[:_LOOKED_AT].splitlines():
        text = line.strip()
        if not text or len(text) > LONGEST_NAME:
            continue
        if _HEADING.search(text.lower()):
            if len(lines) >= 2:
                break
            continue
        lines.append(text)
        if len(lines) == HEADER_LINES:
            break
    return lines


def _lines(document: str) -> frozenset[str]:
    return _names(document)[0]


def _companies(document: str) -> frozenset[str]:
    return _names(document)[1]


@lru_cache(maxsize=256)
def _names(document: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the header's lines, single and joined, as `bare` spells them.

    The first set holds all of them, the second those that end in a legal form.
    """
    lines = header(document)
    whole = [bare(line) for line in lines]
    shorter = [_without_codes(line) for line in lines]
    legal = [_LEGAL.search(line[-_LONGEST_FORM:]) is not None for line in shorter]
    names: list[str] = []
    companies: list[str] = []
    for last, line in enumerate(shorter):
        for first in range(max(last + 1 - LINES_OF_A_NAME, 0), last + 1):
            before = "".join(whole[first:last])
            spelled = (before + whole[last], before + bare(line))
            names += spelled
            if legal[last]:
                companies += spelled
    return frozenset(names) - {""}, frozenset(companies) - {""}


def _without_codes(line: str) -> str:
    """Return `line` without what companies print after their name.

    Such as (registration number), 12345-K or a branch code.
    """
    while True:
        shorter = _IN_BRACKETS.sub("", line.rstrip(_EDGES)).rstrip(_EDGES)
        head, _, last = shorter.rpartition(" ")
        if head and any(char.isdigit() for char in last):
            shorter = head
        if shorter == line:
            return line
        line = shorter
