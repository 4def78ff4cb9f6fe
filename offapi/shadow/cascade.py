"""A cascade: the student answers, and the frontier is asked where the student is least certain.

How good is it by the share that is asked, and which share reaches a wanted quality? A share that
is chosen because it looks good on some documents is worse on others. So shares are tested one
after the other, from asking always to asking never, until one fails (fixed-sequence testing, as in
learn then test, arXiv 2110.01052): the last that passed holds with probability 95%. For a wanted
quality the test is the exact binomial's lower bound; where documents share groups, that of their
95% interval. "As good as the frontier" is the paired difference's. Left out: costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil

import numpy as np
from numpy.typing import NDArray

from offapi.stats import bootstrap
from offapi.stats.contrast import Contrast, contrast
from offapi.stats.interval import Z95, Interval

LEVEL = 0.05  # one-sided
STEPS = 20  # shares that are tested: 100%, 95%, ... 0%
MOST_DOCUMENTS = 1_000_000

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """N documents that both answered: how certain the student was, and which answers are right."""

    certainty: Numbers
    student: Flags
    frontier: Flags
    groups: bootstrap.Groups


@dataclass(frozen=True)
class CascadePoint:
    """The cascade that asks for documents whose certainty is below `below`."""

    below: float  # infinity: all are asked
    asked: float  # share of the documents
    quality: Interval  # share right, 95% interval
    at_random: float  # the quality if as many were asked, chosen at random
    than_frontier: Interval  # quality less the frontier's, paired, 95% interval


@dataclass(frozen=True)
class NeededShare:
    """The smallest share that was shown to suffice; None if that cannot be shown.

    `documents` is then about how many would show it, if they are as these; None where the highest
    quality seen, `best`, is below what is wanted.
    """

    point: CascadePoint | None
    best: float
    documents: int | None = None


def cascade(outcomes: Outcomes) -> list[CascadePoint]:
    """Return a point for each share that a threshold can ask for, the largest first."""
    return [_point(outcomes, below) for below in thresholds(outcomes.certainty)]


def thresholds(certainty: Numbers) -> list[float]:
    """Return the certainties below which is asked, from infinity (always) to the least (never)."""
    ranked = np.sort(certainty)
    counts = {round(len(ranked) * step / STEPS) for step in range(STEPS)} - {len(ranked)}
    return [float("inf"), *sorted({float(ranked[count]) for count in counts}, reverse=True)]


def share_for_quality(outcomes: Outcomes, wanted: float) -> NeededShare:
    """Return the smallest share whose quality is at least `wanted`, with probability 95%."""
    bounds = thresholds(outcomes.certainty)
    best = max(float(_right(outcomes, below).mean()) for below in bounds)

    def passes(below: float) -> bool:
        return lower_bound(_right(outcomes, below), outcomes.groups) >= wanted

    found = _last_passing(bounds, passes)
    if found is not None:
        return NeededShare(_point(outcomes, found), best)
    n = len(outcomes.certainty)
    return NeededShare(None, best, _documents(best, wanted, n) if best > wanted else None)


def share_as_good(outcomes: Outcomes, margin: float) -> NeededShare:
    """Return the smallest share that is at most `margin` worse than asking always, at 97.5%."""
    bounds = thresholds(outcomes.certainty)
    best = max(float(_right(outcomes, below).mean()) for below in bounds)
    found = _last_passing(bounds, lambda below: _compared(outcomes, below, margin).non_inferior)
    if found is not None:
        return NeededShare(_point(outcomes, found), best)
    # asking always differs in no document, which few documents show too
    return NeededShare(None, best, ceil(Z95**2 * (1 / margin - 1)) + 1 if margin else None)


def lower_bound(right: Flags, groups: bootstrap.Groups) -> float:
    """Return the one-sided 95% lower bound of the share of True (Clopper and Pearson 1934).

    Where documents share groups it is the lower end of their 95% interval.
    """
    n = len(right)
    if bootstrap.count(groups) < n:
        return bootstrap.shares([right], groups)[0].low
    return _exact_low(int(right.sum()), n)


def _last_passing(bounds: Sequence[float], passes: Callable[[float], bool]) -> float | None:
    return next(reversed(list(takewhile(passes, bounds))), None)


def _right(outcomes: Outcomes, below: float) -> Flags:
    """Return which documents the cascade has right."""
    return np.where(outcomes.certainty < below, outcomes.frontier, outcomes.student)


def _compared(outcomes: Outcomes, below: float, margin: float = 0.0) -> Contrast:
    return contrast(_right(outcomes, below), outcomes.frontier, 1, outcomes.groups, margin)


def _point(outcomes: Outcomes, below: float) -> CascadePoint:
    compared, asked = _compared(outcomes, below), float((outcomes.certainty < below).mean())
    alone = float(outcomes.student.mean())
    at_random = alone + asked * (float(outcomes.frontier.mean()) - alone)
    return CascadePoint(below, asked, compared.a, at_random, compared.difference)


def _exact_low(right: int, n: int) -> float:
    from scipy.stats import beta

    return float(beta.ppf(LEVEL, right, n - right + 1)) if right else 0.0


def _documents(quality: float, wanted: float, n: int) -> int | None:
    """Return about how many documents of this quality would show `wanted`."""
    while n < MOST_DOCUMENTS:
        if _exact_low(int(quality * n), n) >= wanted:
            return n
        n = int(n * 1.1) + 1
    return None
