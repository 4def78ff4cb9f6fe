"""Whether a saturating law tells what was measured: accuracies
that fall with more rows, or lie off it, do not fit.

Judged by how far trend and residuals move when draws and test documents are resampled: a trend by
its 95% interval, residuals by t at the 5% level, Bonferroni over the sizes. Left out: why; the
labels or the training may be at fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
LEVEL = 0.05
NO_SPREAD = 1e-3  # of an accuracy; less is no difference


@dataclass(frozen=True)
class Signs:
    """Of one fit: the trend of accuracy over the logarithm
    of rows, and each size's mean residual; NaN where none.
    """

    trend: float
    residuals: Numbers  # (S,), the largest size first


def size_levels(rows: Numbers, draw: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each point, how many of its draw have more
    rows: points of one level are draws of one size.
    """
    return np.array(
        [int(((draw == d) & (rows > n)).sum()) for n, d in zip(rows, draw, strict=True)]
    )


def fit_signs(
    rows: Numbers, level: NDArray[np.int64], accuracy: Numbers, fitted: Numbers, weights: Numbers
) -> Signs:
    """The signs of one fit; points without a weight are not looked at."""
    x = np.log(rows) - np.average(np.log(rows), weights=weights)
    trend = float((weights * x) @ accuracy / ((weights * x) @ x))
    sums = np.bincount(level, weights)
    with np.errstate(invalid="ignore"):
        return Signs(trend, np.bincount(level, weights * (accuracy - fitted)) / sums)


def misfit_reason(
    whole: Signs, resampled: Sequence[Signs], sizes: Numbers, means: Numbers, draws: int
) -> str | None:
    """What does not fit, in words; None where nothing is seen.

    `sizes` and their `means` (S,), the largest first.
    """
    best = int(np.argmax(means))
    most = f" Most was right with {sizes[best]:.0f} rows: {100 * means[best]:.1f}%."
    if np.quantile([one.trend for one in resampled], 1 - LEVEL / 2) < -NO_SPREAD:
        return (
            f"No forecast: the more rows, the less is right, {100 * means[-1]:.1f}% with"
            f" {sizes[-1]:.0f} and {100 * means[0]:.1f}% with {sizes[0]:.0f}; draws and test"
            f" documents alone do not move it so far.{most} Look at the labels, and at lr and"
            " epochs, before there are more rows."
        )
    off = whole.residuals / np.maximum(
        np.nanstd([one.residuals for one in resampled], axis=0), NO_SPREAD
    )
    worst = int(np.argmax(np.abs(off)))
    if abs(off[worst]) > _critical(len(sizes), draws):
        side = "above" if off[worst] > 0 else "below"
        return (
            f"No forecast: no saturating curve goes through the points; with {sizes[worst]:.0f}"
            f" rows they lie {100 * abs(whole.residuals[worst]):.1f} points {side} the nearest one,"
            f" further than draws and test documents alone move them.{most} Take more --sizes and"
            " --draws."
        )
    return None


def _critical(sizes: int, draws: int) -> float:
    """How many of their spreads residuals of as many sizes
    may lie off; resampling few draws shows too little of it.
    """
    from scipy.stats import t

    if draws < 2:
        return float(t.ppf(1 - LEVEL / (2 * sizes), np.inf))
    return float(t.ppf(1 - LEVEL / (2 * sizes), sizes * (draws - 1)) * np.sqrt(draws / (draws - 1)))
