"""How far a judge, or any check, can be trusted: its agreement with people's or gold's yes and no.

Left out: choosing a threshold for a wanted precision, which is `offapi grade`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offapi.checks.llm_judge import Judge, Preference
from offapi.checks.verdict import Check, Context, parse
from offapi.stats.interval import Interval, wilson

PASS = 0.5  # a score from here on is a yes


@dataclass(frozen=True)
class Labelled:
    """An answer to a document, and whether a person or the gold answer says that it is right."""

    document: str
    text: str
    right: bool


@dataclass(frozen=True)
class Pair:
    """Two answers to a document, and which is better where somebody said so."""

    document: str
    first: str
    second: str
    better: Preference | None = None


@dataclass(frozen=True)
class Agreement:
    """A check against labels.

    `kappa` (Cohen 1960) takes away what chance agrees on; None where all is one class.
    """

    rows: int
    unread: int  # answers without a verdict: in none of the figures
    raw: Interval
    kappa: float | None
    passed_wrong: int  # wrong answers it let through
    failed_right: int  # right answers it held back


@dataclass(frozen=True)
class Swaps:
    """A judge asked both ways round.

    `raw`: how often its preference is the labelled one; None without labels.
    """

    pairs: int
    consistent: Interval
    raw: Interval | None


def agreement(check: Check, rows: Sequence[Labelled], context: Context | None = None) -> Agreement:
    """Ask `check` about `rows`, a judge about all together,
    and compare; ValueError where none gets a verdict.
    """
    said = (
        _judged(check, rows)
        if isinstance(check, Judge)
        else _checked(check, rows, context or Context())
    )
    read = [
        (passed, row.right) for passed, row in zip(said, rows, strict=True) if passed is not None
    ]
    if not read:
        raise ValueError(f"none of {len(rows)} answers got a verdict")
    same = sum(passed == right for passed, right in read)
    return Agreement(
        rows=len(rows),
        unread=len(rows) - len(read),
        raw=wilson(same, len(read)),
        kappa=kappa(read),
        passed_wrong=sum(passed and not right for passed, right in read),
        failed_right=sum(right and not passed for passed, right in read),
    )


def order_swap(judge: Judge, pairs: Sequence[Pair]) -> Swaps:
    """Ask `judge` about each of `pairs` in both orders,
    and count where it stands by its preference.
    """
    found = judge.preferences([(pair.document, pair.first, pair.second) for pair in pairs])
    labelled = [
        preference == pair.better
        for (preference, _), pair in zip(found, pairs, strict=True)
        if pair.better
    ]
    return Swaps(
        pairs=len(pairs),
        consistent=Interval.of([consistent for _, consistent in found]),
        raw=Interval.of(labelled) if labelled else None,
    )


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of two raters; None where chance alone would agree always."""
    size = len(pairs)
    observed = sum(one == other for one, other in pairs) / size
    first, second = sum(one for one, _ in pairs) / size, sum(other for _, other in pairs) / size
    chance = first * second + (1 - first) * (1 - second)
    return (observed - chance) / (1 - chance) if chance < 1 else None


def _judged(judge: Judge, rows: Sequence[Labelled]) -> list[bool | None]:
    opinions = judge.opinions([(row.document, row.text) for row in rows])
    return [opinion.word == "PASS" if opinion.word else None for opinion in opinions]


def _checked(check: Check, rows: Sequence[Labelled], context: Context) -> list[bool | None]:
    return [check(row.document, parse(row.text), context).score >= PASS for row in rows]
