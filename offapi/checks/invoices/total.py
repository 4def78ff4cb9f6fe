"""Check: the amount is what was finally to be paid, according to the document itself.

Receipts and invoices print many amounts besides the total: before rounding, before tax, the cash
handed over. Three things decide between them, in this order: cash minus change, the rounding line,
the labelled line. Left out: adding up the items, which `adds_up` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from offapi.checks.fields import value_at
from offapi.checks.gold import HALF_A_CENT
from offapi.checks.numbers import NUMBER, is_amount, is_negative, readings_of
from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.text.fold import fold_document
from offapi.text.normalise import is_number

_GROUPED = re.compile(r"\d \d{3}(?!\d)")  # 12 345, which has no other mark
LARGEST_ROUNDING = 0.5  # in the currency's unit; more is not rounding

Label = Literal["total", "part", "tax", "given", "back", "rounding"]

# Beginnings of the words that say what an amount is, in the languages of `dates`.
_STEMS: dict[Label, str] = {
    "total": (
        "total ttl amount due balance payable net gesamt summe betrag importe bedrag pagar payer"
        " pagare betalen"
    ),
    "part": "sub qty quantity item saving disc excl before point",
    "tax": "gst tax vat iva mwst tva btw",
    "given": "cash tender paid pay received gegeben espèces efectivo contant dinheiro numerário",
    "back": "change chg troco rückgeld rendu cambio wisselgeld",
    "rounding": "round rnd arrond arredond arroton redond rundung afrond",
}
_LABEL: dict[str, Label] = {
    stem: label for label, stems in _STEMS.items() for stem in stems.split()
}
_FIRSTS = sorted({stem[0] for stem in _LABEL})


def _match_stems(first: str) -> str:
    """Return a pattern for the stems that begin with the letter `first`, the longest first."""
    rests = [stem[1:] for stem in _LABEL if stem[0] == first]
    return f"{first}(?:{'|'.join(sorted(rests, key=len, reverse=True))})"


# By first letter: twice as fast as one after another.
_STEM = re.compile("|".join(map(_match_stems, _FIRSTS)))


@dataclass(frozen=True)
class _Evidence:
    """What the document says about its total; each tuple is empty where it says nothing."""

    printed: frozenset[float]
    paid: tuple[float, ...]  # cash minus change, where that amount is printed too
    roundings: tuple[float, ...]
    labelled: tuple[float, ...]


def final_total(field: str) -> Check:
    """Return a check: 0 when the document shows that another amount was to be paid, else 1.

    It is also 1 where the field is null.
    """

    @needs("object")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        total = value_at(answer.value, field)
        if total is None:
            return Verdict(1.0, f"{field} has no value")
        if not is_number(total):
            return Verdict(0.0, f"{field} is not a number: {total!r}")
        return _judge(field, total, _evidence(document))

    return check


def _judge(field: str, total: float, evidence: _Evidence) -> Verdict:
    if evidence.paid:
        right = _among(total, evidence.paid)
        return Verdict(
            float(right),
            f"{field} is {'' if right else 'not '}cash minus change, {evidence.paid[0]:.2f}",
        )
    for rounding in evidence.roundings:
        if _among(total + rounding, evidence.printed):
            return Verdict(0.0, f"{field} is the amount before rounding to {total + rounding:.2f}")
    if evidence.labelled and not _among(total, evidence.labelled):
        return Verdict(0.0, f"{field} is not on a line labelled as a total")
    return Verdict(1.0, f"nothing contradicts {field}")


def _among(amount: float, others: Iterable[float]) -> bool:
    return any(abs(amount - other) <= HALF_A_CENT for other in others)


@lru_cache(maxsize=256)
def _evidence(document: str) -> _Evidence:
    given: list[float] = []
    back: list[float] = []
    roundings: list[float] = []
    labelled: list[float] = []
    printed: set[float] = set()
    before = ""
    for line in fold_document(document).lower().splitlines():
        amounts = _amounts(line)
        if amounts:
            every = [amount for readings in amounts for amount in readings]
            printed.update(map(abs, every))
            labels = _labels(line) or _labels(before)
            if "total" in labels:
                labelled += _labelled(line, amounts)
            elif "back" in labels:
                back += _last(amounts)
            elif "given" in labels:
                given += _last(amounts)
            if "rounding" in labels:
                roundings += [
                    amount for amount in every if HALF_A_CENT < abs(amount) < LARGEST_ROUNDING
                ]
        before = "" if amounts else line
    paid = {round(abs(cash) - abs(change), 2) for cash in given for change in back}
    rounded = [amount + rounding for amount in labelled for rounding in roundings]
    return _Evidence(
        printed=frozenset(printed),
        paid=tuple(amount for amount in paid if amount > 0 and _among(amount, printed)),
        roundings=tuple(roundings),
        labelled=(*labelled, *rounded),
    )


def _labels(line: str) -> set[Label]:
    """Return what the words of `line` say its amount is.

    A part of the total, such as `total tax` or `subtotal`, is not a total.
    """
    matches = list(_STEM.finditer(line))
    labels = {_LABEL[match[0]] for match in matches}
    if "total" in labels and "tax" in labels:
        for left, right in pairwise(matches):
            between = line[left.end() : right.start()]
            if {_LABEL[left[0]], _LABEL[right[0]]} == {"total", "tax"} and not between.strip(" :-"):
                labels.add("part")
    return labels - {"total"} if "part" in labels else labels


def _amounts(line: str) -> list[tuple[float, ...]]:
    """Return the amounts in `line` (lower-case), each as every reading of its marks."""
    if "." not in line and "," not in line and "'" not in line and not _GROUPED.search(line):
        return []
    amounts: list[tuple[float, ...]] = []
    signed = "-" in line or "(" in line
    for match in NUMBER.finditer(line):
        written = match[0]
        if len(written) < 3:
            continue
        if written[-3] == "." and written[:-3].isdigit() and written[-2:].isdigit():
            readings = [float(written)]
        elif is_amount(written.rpartition(" ")[2]) or _GROUPED.search(written):
            readings = sorted(readings_of(written))
        else:
            continue
        negative = signed and is_negative(line, match.start(), match.end())
        amounts.append(tuple(-amount for amount in readings) if negative else tuple(readings))
    return amounts


def _labelled(line: str, amounts: Sequence[tuple[float, ...]]) -> list[float]:
    """Return what a total's line gives; brackets may be a minus, or only brackets."""
    last = _last(amounts)
    return [*last, *map(abs, last)] if "(" in line else last


def _last(amounts: Sequence[tuple[float, ...]]) -> list[float]:
    """Return all readings of the last amount; of two amounts with one each, both.

    A summary may have two columns.
    """
    last = 2 if len(amounts[-1]) == 1 else 1
    return [amount for readings in amounts[-last:] for amount in readings]
