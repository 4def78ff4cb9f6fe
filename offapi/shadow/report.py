"""What a shadow run shows: may the student replace the frontier, and whom is it better to ask?

With gold, quality is the share of documents with all fields right. Without, it is agreement with
the frontier, and the report says what that leaves open. Left out: grading (`offapi.shadow.pairs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from offapi.evaluation.compare import Comparison, compare_answers
from offapi.shadow.cascade import (
    CascadePoint,
    NeededShare,
    Outcomes,
    cascade,
    share_as_good,
    share_for_quality,
)
from offapi.shadow.certainty import Basis
from offapi.shadow.pairs import ShadowPair
from offapi.stats.bootstrap import shares
from offapi.stats.contrast import Contrast, contrast
from offapi.stats.interval import Interval

NAMES = ("student", "frontier")
FEWEST_FOR_SHARE = 20  # documents; below, a curve is noise


@dataclass(frozen=True)
class ShadowReport:
    """The student and the frontier on the same requests; see the module."""

    n: int
    unanswered: int  # requests without a recorded answer
    failed: int  # that the student could not answer
    margin: float
    wanted: float | None  # quality
    agreement: dict[str, Interval]  # by field
    agree: Interval  # in all fields
    checks: Contrast | None  # passing every check that needs no gold
    gold: Comparison | None
    basis: Basis | None  # of the certainty; None: nothing is known of it
    points: tuple[CascadePoint, ...]
    for_quality: NeededShare | None
    as_good: NeededShare | None

    @classmethod
    def of(
        cls,
        pairs: Sequence[ShadowPair],
        *,
        unanswered: int,
        margin: float,
        wanted: float | None,
        basis: Basis | None,
    ) -> Self:
        """Compute the report of one pair or more. `wanted` is a quality in (0, 1], or None."""
        agrees = np.array([list(pair.agrees.values()) for pair in pairs])
        columns = [agrees.all(axis=1), *agrees.T]
        agree, *each = shares(columns, [pair.group for pair in pairs])
        golds = [pair.gold for pair in pairs if pair.gold is not None]
        sides = tuple(zip(*golds, strict=True))
        gold = compare_answers(*sides, margin=margin, names=NAMES) if golds else None
        outcomes = _outcomes(pairs) if basis is not None else None
        return cls(
            len(pairs),
            unanswered,
            sum(pair.student.answer is None for pair in pairs),
            margin,
            wanted,
            dict(zip(pairs[0].agrees, each, strict=True)),
            agree,
            _checks(pairs, margin),
            gold,
            basis,
            tuple(cascade(outcomes)) if outcomes else (),
            share_for_quality(outcomes, wanted) if outcomes and wanted else None,
            share_as_good(outcomes, margin) if outcomes and gold else None,
        )

    @property
    def judged(self) -> Contrast | None:
        """What the verdict rests on: gold where there is some, else the checks."""
        return self.gold.all_fields if self.gold else self.checks

    @property
    def verdict(self) -> str:
        """Return "yes", "no" or "too few documents": may the student replace the frontier?

        "cannot be said" without gold, because checks and agreement do not show who is right.
        """
        if self.gold is None:
            return "cannot be said"
        compared = self.gold.all_fields
        if compared.non_inferior:
            return "yes"
        return "no" if compared.difference.high < -self.margin else "too few documents"

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        agreement = {name: asdict(each) for name, each in self.agreement.items()}
        curve = [_point_dict(point) for point in self.points]
        return {
            "n": self.n,
            "unanswered": self.unanswered,
            "failed": self.failed,
            "verdict": self.verdict,
            "margin": self.margin,
            "agreement": agreement,
            "agree": asdict(self.agree),
            "checks": asdict(self.checks) if self.checks else None,
            "gold": self.gold.as_dict() if self.gold else None,
            "quality_is": "all fields right" if self.gold else "agreement with the frontier",
            "wanted": self.wanted,
            "certainty": self.basis,
            "curve": curve,
            "share_for_quality": _needed_dict(self.for_quality),
            "share_as_good": _needed_dict(self.as_good),
        }


def _outcomes(pairs: Sequence[ShadowPair]) -> Outcomes | None:
    """Return what a cascade rests on: the pairs with gold, or all where there is none.

    None where they are too few.
    """
    known = [pair for pair in pairs if pair.gold is not None] or list(pairs)
    if len(known) < FEWEST_FOR_SHARE:
        return None
    student = [_right(pair, 0) for pair in known]
    frontier = [_right(pair, 1) for pair in known]
    certainty = [
        -1.0 if pair.student.certainty is None else pair.student.certainty for pair in known
    ]
    return Outcomes(
        np.array(certainty), np.array(student), np.array(frontier), [pair.group for pair in known]
    )


def _right(pair: ShadowPair, side: int) -> bool:
    """Return whether one side is right; without gold the frontier counts as right."""
    if pair.gold is not None:
        return all(pair.gold[side].correct.values())
    return side == 1 or all(pair.agrees.values())


def _checks(pairs: Sequence[ShadowPair], margin: float) -> Contrast | None:
    scores = [pair.scores for pair in pairs if pair.scores is not None]
    if not scores:
        return None
    passed = np.array(scores) >= 1.0 - 1e-9
    return contrast(passed[:, 0], passed[:, 1], 1, [pair.group for pair in pairs], margin)


def _point_dict(point: CascadePoint) -> dict[str, Any]:
    below = None if point.asked == 1.0 and np.isinf(point.below) else point.below
    return {**asdict(point), "below": below}


def _needed_dict(needed: NeededShare | None) -> dict[str, Any] | None:
    if needed is None:
        return None
    point = _point_dict(needed.point) if needed.point else None
    return {"point": point, "best": needed.best, "documents": needed.documents}
