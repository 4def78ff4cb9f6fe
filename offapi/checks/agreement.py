"""How far a check or a judge can be trusted: its agreement with labels from people or gold.

Left out: choosing a threshold for a wanted precision, which `offapi grade` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from offapi.checks.answer_reading import read_answer
from offapi.checks.verdict import Check, Context
from offapi.stats.interval import Interval, wilson
from offapi.text.display import plural

PASS = 0.5  # the lowest score that counts as a yes


@dataclass(frozen=True)
class Labelled:
    """An answer to a document, and whether a person or the gold answer says that it is right."""

    document: str
    text: str
    right: bool


@runtime_checkable
class BatchCheck(Protocol):
    """A check that takes many answers at once, as a judge does."""

    def passed(self, cases: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Return whether each (document, answer) passes; None where it got no verdict."""
        ...


@dataclass(frozen=True)
class CheckAgreement:
    """A check's agreement with labels.

    `kappa` (Cohen 1960) is corrected for chance; None when all answers belong to one class.
    """

    rows: int
    unread: int  # answers without a verdict, left out of the other figures
    raw: Interval
    kappa: float | None
    passed_wrong: int  # wrong answers that passed
    failed_right: int  # right answers that failed


def agreement(
    check: Check, rows: Sequence[Labelled], context: Context | None = None
) -> CheckAgreement:
    """Ask `check` about `rows` and compare its verdicts with the labels.

    A judge is asked about all rows at once. Raise ValueError when no row gets a verdict.
    """
    if isinstance(check, BatchCheck):
        verdicts = check.passed([(row.document, row.text) for row in rows])
    else:
        verdicts = _checked(check, rows, context or Context())
    judged = [
        (passed, row.right)
        for passed, row in zip(verdicts, rows, strict=True)
        if passed is not None
    ]
    if not judged:
        raise ValueError(f"no answer got a verdict, of {plural(len(rows), 'answer')}")
    same = sum(passed == right for passed, right in judged)
    passed_wrong = sum(passed and not right for passed, right in judged)
    failed_right = sum(right and not passed for passed, right in judged)
    return CheckAgreement(
        rows=len(rows),
        unread=len(rows) - len(judged),
        raw=wilson(same, len(judged)),
        kappa=cohen_kappa(judged),
        passed_wrong=passed_wrong,
        failed_right=failed_right,
    )


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Return Cohen's kappa of two raters; None when chance alone would always agree."""
    size = len(pairs)
    observed = sum(first == second for first, second in pairs) / size
    first_yes = sum(first for first, _ in pairs) / size
    second_yes = sum(second for _, second in pairs) / size
    chance = first_yes * second_yes + (1 - first_yes) * (1 - second_yes)
    return (observed - chance) / (1 - chance) if chance < 1 else None


def _checked(check: Check, rows: Sequence[Labelled], context: Context) -> list[bool | None]:
    return [check(row.document, read_answer(row.text), context).score >= PASS for row in rows]
