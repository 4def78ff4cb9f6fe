"""A saturating curve through the accuracies at several sizes, with its uncertainty.

accuracy(n) = a - b * n^-c, the power law of learning curves (Hestness et al., arXiv 1712.00409;
fitted to accuracies as in Mahmood et al., arXiv 2207.01725). Uncertainty by a bootstrap over
draws and over test documents at once. Left out: how many rows are needed (`rows_needed`), and
whether the law fits at all (`goodness_of_fit`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from offapi.compare.curve.goodness_of_fit import NO_SPREAD, fit_signs, misfit_reason, size_levels
from offapi.errors import DataError
from offapi.stats.interval import Interval, wilson

Numbers = NDArray[np.float64]
RESAMPLES, SEED = 400, 0
LOWEST_C, HIGHEST_C = 0.1, 3.0
GRID = np.geomspace(LOWEST_C, HIGHEST_C, 70)  # of c, in steps of 5%


@dataclass(frozen=True)
class Law:
    """The law a - b * n^-c."""

    a: float
    b: float
    c: float

    def at(self, n: float) -> float:
        """Return the accuracy with `n` rows."""
        return float(self.through(np.array([n]))[0])

    def through(self, rows: Numbers) -> Numbers:
        """Return the accuracy with each number of `rows`."""
        return np.asarray(self.a - self.b * rows**-self.c)

    def need(self, want: float) -> float:
        """Return the rows for the accuracy `want`; infinite if the law never reaches it."""
        if self.b == 0:
            return 0.0 if self.a >= want else inf
        return float((self.b / (self.a - want)) ** (1 / self.c)) if self.a > want else inf


@dataclass(frozen=True)
class Points:
    """P points: the `rows` (P,) learned from, their `draw` (P,), and `right` (P, D) test documents.

    Documents with the same number in `unit` (D,) are resampled together.
    """

    rows: Numbers
    draw: NDArray[np.int64]
    right: Numbers
    unit: NDArray[np.int64]

    @property
    def means(self) -> Numbers:
        """The accuracies, (P,)."""
        return np.asarray(self.right.mean(axis=1))


@dataclass(frozen=True)
class Curve:
    """The law, and the laws of resampled data."""

    law: Law
    resampled: tuple[Law, ...]
    have: float  # rows of the largest point
    # mean rows and accuracy of each size, the largest first
    measured: tuple[tuple[float, float], ...]
    documents: int  # in the test set
    misfit: str | None = None  # why the law does not fit; None if it does

    def reached(self, want: float) -> tuple[float, float] | None:
        """Return the smallest size, and its accuracy, from which on all reach `want`."""
        enough = itertools.takewhile(lambda size: size[1] >= want - 1e-9, self.measured)
        return next(reversed(list(enough)), None)

    def band(self, n: float) -> Interval:
        """Return the accuracy at `n` rows, with its 95% interval."""
        low, high = np.quantile([law.at(n) for law in self.resampled], (0.025, 0.975))
        mean = self.law.at(n)
        # If all documents are alike, the bootstrap sees no spread.
        if high - low < NO_SPREAD and self.documents:
            alike = wilson(round(np.clip(mean, 0, 1) * self.documents), self.documents)
            low, high = min(low, alike.low), max(high, alike.high)
        return Interval(mean, min(float(low), mean), max(float(high), mean))

    def doubling(self) -> Interval:
        """Return what twice the rows would add to the accuracy."""
        low, high = np.quantile(
            [law.at(2 * self.have) - law.at(self.have) for law in self.resampled], (0.025, 0.975)
        )
        mean = self.law.at(2 * self.have) - self.law.at(self.have)
        return Interval(mean, min(float(low), mean), max(float(high), mean))


def fit_curve(points: Points) -> Curve:
    """Fit the law by least squares, and again to each resample.

    Raise DataError with fewer than three sizes.
    """
    if len(np.unique(points.rows)) < 3:
        what = f"a curve needs three sizes or more, got {len(np.unique(points.rows))}."
        raise DataError(what, next_step="Name more sizes with --sizes.")
    random = np.random.Generator(np.random.Philox(SEED))
    draws, units = np.unique(points.draw), np.unique(points.unit)
    level = size_levels(points.rows, points.draw)
    resampled, signs = [], []
    for _ in range(RESAMPLES):
        of_draw = random.multinomial(len(draws), np.full(len(draws), 1 / len(draws)))
        of_unit = random.multinomial(len(units), np.full(len(units), 1 / len(units)))
        documents = of_unit[np.searchsorted(units, points.unit)]
        weights = of_draw[np.searchsorted(draws, points.draw)].astype(np.float64)
        used = weights > 0
        if len(np.unique(points.rows[used])) < 3:  # draws may differ in their sizes
            continue
        accuracy = points.right @ documents / documents.sum()
        resampled.append(search_law(points.rows[used], accuracy[used], weights[used]))
        signs.append(
            fit_signs(points.rows, level, accuracy, resampled[-1].through(points.rows), weights)
        )
    ones = np.ones(len(points.rows))
    whole = fit_law(points.rows, points.means, ones)
    sizes, means = (
        np.bincount(level, each) / np.bincount(level) for each in (points.rows, points.means)
    )
    seen = fit_signs(points.rows, level, points.means, whole.through(points.rows), ones)
    wrong = misfit_reason(seen, signs, sizes, means, len(draws)) if signs else None
    measured = tuple(zip(sizes.tolist(), means.tolist(), strict=True))
    have, documents = float(points.rows.max()), points.right.shape[1]
    return Curve(whole, tuple(resampled or [whole]), have, measured, documents, wrong)


def fit_law(rows: Numbers, accuracy: Numbers, weights: Numbers) -> Law:
    """Fit by weighted least squares with 0 <= a <= 1 and b >= 0: it saturates and never falls."""
    from scipy.optimize import least_squares

    # b is scaled to the gap at the smallest size.
    unit, start = rows.min(), search_law(rows, accuracy, weights)
    scaled, root = rows / unit, np.sqrt(weights)

    def residuals(x: Numbers) -> Numbers:
        return np.asarray(root * (x[0] - x[1] * scaled ** -x[2] - accuracy))

    low, high = np.array([0.0, 0.0, LOWEST_C]), np.array([1.0, 2.0, HIGHEST_C])
    inside = np.clip([start.a, start.b / unit**start.c, start.c], low + 1e-6, high - 1e-6)
    a, b, c = least_squares(residuals, inside, bounds=(low, high), xtol=1e-12, ftol=1e-12).x
    return Law(float(a), float(b * unit**c), float(c))


def search_law(rows: Numbers, accuracy: Numbers, weights: Numbers) -> Law:
    """Fit the same with c on a grid: for each c, the best a and b have a closed form."""
    gaps = (rows / rows.min()) ** -GRID[:, None]  # (C, P)
    share = weights / weights.sum()
    mean_gap, mean = gaps @ share, float(accuracy @ share)
    spread, shared = (gaps**2) @ share - mean_gap**2, (gaps * accuracy) @ share - mean_gap * mean
    b = np.maximum(-shared / np.maximum(spread, 1e-12), 0.0)
    a = mean + b * mean_gap
    b = np.where(
        a > 1, np.maximum((gaps @ share - (gaps * accuracy) @ share) / ((gaps**2) @ share), 0.0), b
    )
    a = np.minimum(a, 1.0)
    best = int(np.argmin(((a[:, None] - b[:, None] * gaps - accuracy) ** 2) @ share))
    return Law(float(a[best]), float(b[best] * rows.min() ** GRID[best]), float(GRID[best]))
