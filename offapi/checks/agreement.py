"""How far a judge, or any check, can be trusted: its agreement with people's or gold's yes and no.

Left out: choosing a threshold for a wanted precision, which is `offapi grade`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from offapi.checks.verdict import Check, Context, parse
from offapi.stats.interval import Interval, wilson

PASS = 0.5  # a score from here on is a yes


@dataclass(frozen=True)
class Labelled:
    """An answer to a document, and whether a person or the gold answer says that it is right."""

    document: str
    text: str
    right: bool


@runtime_checkable
class BatchCheck(Protocol):
    """A check that is best asked about many answers at once, as a judge is."""

    def passed(self, cases: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Return whether each (document, answer) passes, None where it got no verdict."""
        ...


@dataclass(frozen=True)
class CheckAgreement:
    """A check against labels.

    `kappa` (Cohen 1960) takes away what chance agrees on; None where all is one class.
    """

    rows: int
    unread: int  # answers without a verdict: in none of the figures
    raw: Interval
    kappa: float | None
    passed_wrong: int  # wrong answers it let through
    failed_right: int  # right answers it held back


def agreement(
    check: Check, rows: Sequence[Labelled], context: Context | None = None
) -> CheckAgreement:
    """Ask `check` about `rows`, a judge about all together,
    and compare; ValueError where none gets a verdict.
    """
    if isinstance(check, BatchCheck):
        said = check.passed([(row.document, row.text) for row in rows])
    else:
        said = _checked(check, rows, context or Context())
    read = [
        (passed, row.right) for passed, row in zip(said, rows, strict=True) if passed is not None
    ]
    if not read:
        raise ValueError(f"none of {len(rows)} answers got a verdict")
    same = sum(passed == right for passed, right in read)
    return CheckAgreement(
        rows=len(rows),
        unread=len(rows) - len(read),
        raw=wilson(same, len(read)),
        kappa=cohen_kappa(read),
        passed_wrong=sum(passed and not right for passed, right in read),
        failed_right=sum(right and not passed for passed, right in read),
    )


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of two raters; None where chance alone would agree always."""
    size = len(pairs)
    observed = sum(one == other for one, other in pairs) / size
    first, second = sum(one for one, _ in pairs) / size, sum(other for _, other in pairs) / size
    chance = first * second + (1 - first) * (1 - second)
    return (observed - chance) / (1 - chance) if chance < 1 else None


def _checked(check: Check, rows: Sequence[Labelled], context: Context) -> list[bool | None]:
    return [check(row.document, parse(row.text), context).score >= PASS for row in rows]
