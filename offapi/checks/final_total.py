"""Check: the amount is what was to be paid in the end, by what the document itself says.

Receipts and invoices print many amounts beside the total: before rounding, before tax, the
cash handed over. Three things tell them apart, in this order: cash less change, the line
that rounds, the line that is labelled. Left out: adding up the items.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from offapi.checks.gold import TOLERANCE, is_number
from offapi.checks.readings import values
from offapi.checks.verdict import Answer, Check, Context, Verdict

LARGEST_ROUNDING = 0.5  # in the currency's unit; more is no rounding

# With a fraction or marked thousands: 12.50, 1,234, .05, 5.00-. A plain 12 may be anything.
_AMOUNT = re.compile(
    r"(?<![\w.,])(-?)(?:RM|US\$|[$€£¥₹])?"
    r"(\d{1,3}(?:[.,' ]\d{3})*[.,] ?\d\d|\d+[.,]\d\d|\.\d\d|\d{1,3}(?:[.,']\d{3})+)(?!\d|[.,]\d)(-?)"
)
_TOTAL = re.compile(
    r"total|\bttl\b|amount|\bdue\b|balance|payable|to pay|\bnett?\b|a pagar|à payer|da pagare|te betalen"
    r"|zu zahlen|summe|betrag|importe?\b|bedrag",
    re.I,
)
_PART = re.compile(
    r"sub\W?-?t|qty|quantity|items?\b|saving|disc|excl|before|points|chang|total\W+(?:gst|tax|vat|iva|mwst|tva|btw)\b"
    r"|(?:gst|tax|vat|iva|mwst|tva|btw)\W+(?:total|payable|amount)|round\w*\W+ad",
    re.I,
)
_GIVEN = re.compile(
    r"cash|tender|paid|payment|\bpay\b|received|bar\b|gegeben|espèces|efectivo|contant|dinheiro|numerário",
    re.I,
)
_BACK = re.compile(r"change|troco|rückgeld|rendu|cambio|resto\b|wisselgeld", re.I)
_ROUND = re.compile(r"round|\brnd\b|arrond|arredond|arroton|redond|rundung|afrond", re.I)


@dataclass(frozen=True)
class _Evidence:
    """What the document says of its total; each tuple is empty where it says nothing."""

    printed: frozenset[float]
    paid: tuple[float, ...]  # cash less change, where that amount is printed too
    roundings: tuple[float, ...]
    labelled: tuple[float, ...]


def final_total(field: str) -> Check:
    """A check: 0 when the document shows that another amount than `field` was to be paid, else 1."""

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        total = answer.value.get(field)
        if not is_number(total):
            return Verdict(0.0, f"{field} is no number")
        return _judge(field, total, _evidence(document))

    return check


def _judge(field: str, total: float, said: _Evidence) -> Verdict:
    if said.paid:
        right = _among(total, said.paid)
        return Verdict(float(right), f"{field} is {'' if right else 'not '}cash less change, {said.paid[0]:.2f}")
    for rounding in said.roundings:
        if _among(total + rounding, said.printed):
            return Verdict(0.0, f"{field} is the amount before rounding to {total + rounding:.2f}")
    if said.labelled and not _among(total, said.labelled):
        return Verdict(0.0, f"{field} stands on no line that is labelled a total")
    return Verdict(1.0, f"nothing speaks against {field}")


def _amounts(line: str) -> list[float]:
    """The amounts in `line`, each in every reading of its marks."""
    return [
        -value if before or after else value
        for before, written, after in _AMOUNT.findall(line)
        for value in values("0" + written if written[0] == "." else written)
    ]


def _among(amount: float, found: Iterable[float]) -> bool:
    return any(abs(amount - other) <= TOLERANCE for other in found)


@lru_cache(maxsize=256)
def _evidence(document: str) -> _Evidence:
    given: list[float] = []
    back: list[float] = []
    roundings: list[float] = []
    labelled: list[float] = []
    printed: set[float] = set()
    waiting = False  # a label without an amount: the amount may stand on the next line
    for line in document.splitlines():
        amounts = _amounts(line)
        printed.update(map(abs, amounts))
        total = _TOTAL.search(line) and not _PART.search(line)
        if total or (waiting and not re.search(r"[^\W\d_]{4}", line)):
            labelled += amounts[-2:]
        elif _BACK.search(line):
            back += amounts[-2:]
        elif _GIVEN.search(line):
            given += amounts[-2:]
        if _ROUND.search(line):
            roundings += [amount for amount in amounts if TOLERANCE < abs(amount) < LARGEST_ROUNDING]
        waiting = bool(total) and not amounts
    paid = {round(abs(cash) - abs(change), 2) for cash in given for change in back}
    rounded = [amount + rounding for amount in labelled for rounding in roundings]
    return _Evidence(
        printed=frozenset(printed),
        paid=tuple(amount for amount in paid if amount > 0 and _among(amount, printed)),
        roundings=tuple(roundings),
        labelled=(*labelled, *rounded),
    )
