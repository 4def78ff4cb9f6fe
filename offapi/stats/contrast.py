"""A and B compared on one score of the same documents: rates, difference, test and power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.stats import bootstrap, paired
from offapi.stats.interval import Interval


@dataclass(frozen=True)
class Contrast:
    """A and B compared in one field. `difference` is A minus B; p values are two-sided."""

    a: Interval
    b: Interval
    difference: Interval
    only_a: int  # documents that only A has right, McNemar's b; for a mean: where A is better
    only_b: int  # McNemar's c
    p: float
    p_holm: float  # `p`, corrected for the number of fields
    detectable: float  # the smallest true difference that is found with 80% power
    non_inferior: bool  # the interval's lower end is less than the margin below 0


def contrast(
    a: NDArray[Any], b: NDArray[Any], steps: int, groups: bootstrap.Groups, margin: float
) -> Contrast:
    """Compare A and B, where `a` and `b` count how many of `steps` things each document has right.

    Groups of documents are resampled whole.
    """
    each = a.astype(np.int64) - b.astype(np.int64)
    units = bootstrap.sums(each[:, None], groups)[0][:, 0].astype(np.int64)
    only_a, only_b = int((each > 0).sum()), int((each < 0).sum())
    plain = steps == 1 and len(units) == len(each)
    p = paired.mcnemar(only_a, only_b) if plain else paired.sign_flip(units)
    difference = _difference(each / steps, units / steps, groups, binary=steps == 1)
    detectable = paired.detectable(units / steps, len(each), 1 / steps)
    rate_a, rate_b = (_rate(side, steps, groups) for side in (a, b))
    return Contrast(
        rate_a, rate_b, difference, only_a, only_b, p, p, detectable, difference.low > -margin
    )


def _rate(right: NDArray[Any], steps: int, groups: bootstrap.Groups) -> Interval:
    if steps == 1:
        return bootstrap.shares([right], groups)[0]
    return bootstrap.rates(right[:, None] / steps, groups)[0]


def _difference(
    each: NDArray[Any], units: NDArray[Any], groups: bootstrap.Groups, *, binary: bool
) -> Interval:
    """Return the bootstrap's interval, or the score interval where that is wider and needed.

    It is needed when few documents differ, or, for a mean, none. Groups count as fewer documents,
    in proportion to how much more their sums vary than single documents would.
    """
    interval = bootstrap.intervals(each[:, None], groups)[0]
    if not binary and interval.high > interval.low:
        return interval
    squares = float(each @ each)
    alike = max(1.0, float(units @ units) / squares) if squares else len(each) / len(units)
    better, worse = float(each[each > 0].sum()), -float(each[each < 0].sum())
    score = paired.score_interval(better / alike, worse / alike, len(each) / alike)
    return Interval(interval.mean, min(interval.low, score.low), max(interval.high, score.high))
