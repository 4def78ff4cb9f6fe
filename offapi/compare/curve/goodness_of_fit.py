"""Whether a saturating law fits: accuracies that fall with more rows, or lie off it, do not.

The test is how far trend and residuals move when draws and test documents are resampled: the trend
by its 95% interval, residuals by t at the 5% level, Bonferroni over the sizes. Left out: the
cause, which may be the labels or the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.text.display import plural

Numbers = NDArray[np.float64]
LEVEL = 0.05
NO_SPREAD = 1e-3  # differences of accuracy below this do not count


@dataclass(frozen=True)
class Signs:
    """The trend of accuracy over the logarithm of rows, and each size's mean residual, of one fit.

    A size without points has NaN.
    """

    trend: float
    residuals: Numbers  # (S,), the largest size first


def size_levels(rows: Numbers, draw: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for each point, those of its draw that have more rows.

    Points with the same count are draws of the same size.
    """
    return np.array(
        [int(((draw == d) & (rows > n)).sum()) for n, d in zip(rows, draw, strict=True)]
    )


def fit_signs(
    rows: Numbers, level: NDArray[np.int64], accuracy: Numbers, fitted: Numbers, weights: Numbers
) -> Signs:
    """Return the signs of one fit; points of weight 0 are ignored."""
    x = np.log(rows) - np.average(np.log(rows), weights=weights)
    trend = float((weights * x) @ accuracy / ((weights * x) @ x))
    sums = np.bincount(level, weights)
    with np.errstate(invalid="ignore"):
        return Signs(trend, np.bincount(level, weights * (accuracy - fitted)) / sums)


def misfit_reason(
    whole: Signs, resampled: Sequence[Signs], sizes: Numbers, means: Numbers, draws: int
) -> str | None:
    """Return what does not fit, in words; None if nothing is found.

    `sizes` and their `means` (S,), the largest first.
    """
    best = int(np.argmax(means))
    most = (
        f" The best accuracy was {100 * means[best]:.1f}%, with"
        f" {plural(round(sizes[best]), 'row')}."
    )
    if np.quantile([signs.trend for signs in resampled], 1 - LEVEL / 2) < -NO_SPREAD:
        return (
            f"No forecast: accuracy falls with more rows, from {100 * means[-1]:.1f}% with"
            f" {sizes[-1]:.0f} to {100 * means[0]:.1f}% with {sizes[0]:.0f}. Chance alone does not"
            f" explain this.{most} Check the labels, lr and epochs before you add rows."
        )
    spread = np.nanstd([signs.residuals for signs in resampled], axis=0)
    off = whole.residuals / np.maximum(spread, NO_SPREAD)
    worst = int(np.argmax(np.abs(off)))
    if abs(off[worst]) > _critical(len(sizes), draws):
        side = "above" if off[worst] > 0 else "below"
        return (
            f"No forecast: no saturating curve fits the points. With"
            f" {plural(round(sizes[worst]), 'row')},"
            f" accuracy is {100 * abs(whole.residuals[worst]):.1f} points {side} the closest curve,"
            f" more than chance explains.{most} Try more --sizes and --draws."
        )
    return None


def _critical(sizes: int, draws: int) -> float:
    """Return how many of their spreads residuals may lie off.

    The factor corrects for few draws, whose resampling shows too little spread.
    """
    from scipy.stats import t

    if draws < 2:
        return float(t.ppf(1 - LEVEL / (2 * sizes), np.inf))
    return float(t.ppf(1 - LEVEL / (2 * sizes), sizes * (draws - 1)) * np.sqrt(draws / (draws - 1)))
