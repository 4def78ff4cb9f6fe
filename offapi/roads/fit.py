"""A saturating curve through accuracies at several sizes, how sure it is, and what it says of more rows.

accuracy(n) = a - b * n^-c, the power law of learning curves (Hestness et al., arXiv 1712.00409;
fitted to accuracies as in Mahmood et al., arXiv 2207.01725). Uncertainty by a bootstrap over
draws and over test documents at once. Beyond four times the rows there are, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offapi.errors import DataError
from offapi.stats.interval import Interval, wilson

Numbers = NDArray[np.float64]
RESAMPLES, SEED = 400, 0
LOWEST_C, HIGHEST_C = 0.1, 3.0
GRID = np.geomspace(LOWEST_C, HIGHEST_C, 70)  # of c, in steps of 5%
FAR = 4  # times the rows there are
NO_SPREAD = 1e-3

Kind = Literal["there", "more", "beyond", "never"]


@dataclass(frozen=True)
class Law:
    """a - b * n^-c."""

    a: float
    b: float
    c: float

    def at(self, n: float) -> float:
        """Accuracy with `n` rows."""
        return float(self.a - self.b * n**-self.c)

    def need(self, want: float) -> float:
        """Rows for the accuracy `want`; infinite where the law never reaches it."""
        if self.b == 0:
            return 0.0 if self.a >= want else inf
        return float((self.b / (self.a - want)) ** (1 / self.c)) if self.a > want else inf


@dataclass(frozen=True)
class Points:
    """P points: `rows` (P,) learned from, the number of their `draw` (P,), and `right` (P, D) test documents.

    `unit` (D,): documents of one number are resampled together.
    """

    rows: Numbers
    draw: NDArray[np.int64]
    right: Numbers
    unit: NDArray[np.int64]

    @property
    def means(self) -> Numbers:
        """Accuracies, (P,)."""
        return np.asarray(self.right.mean(axis=1))


@dataclass(frozen=True)
class Curve:
    """The law, and the laws of resampled data."""

    law: Law
    resampled: tuple[Law, ...]
    have: float  # rows of the largest point
    documents: int = 0  # of the test set

    def band(self, n: float) -> Interval:
        """Accuracy at `n` rows, with its 95% interval."""
        low, high = np.quantile([law.at(n) for law in self.resampled], (0.025, 0.975))
        mean = self.law.at(n)
        if high - low < NO_SPREAD and self.documents:  # all documents alike: the bootstrap sees no spread
            alike = wilson(round(np.clip(mean, 0, 1) * self.documents), self.documents)
            low, high = min(low, alike.low), max(high, alike.high)
        return Interval(mean, min(float(low), mean), max(float(high), mean))

    def doubling(self) -> Interval:
        """What twice the rows there are would add."""
        low, high = np.quantile([law.at(2 * self.have) - law.at(self.have) for law in self.resampled], (0.025, 0.975))
        mean = self.law.at(2 * self.have) - self.law.at(self.have)
        return Interval(mean, min(float(low), mean), max(float(high), mean))


@dataclass(frozen=True)
class Answer:
    """Rows in all for the accuracy `want`, with their 95% range; None beyond four times what there is."""

    want: float
    kind: Kind
    rows: float | None
    low: float | None
    high: float | None
    text: str


def fit(points: Points) -> Curve:
    """The law by least squares, and again for each resample. DataError with fewer than three sizes."""
    if len(np.unique(points.rows)) < 3:
        step = "Draw at three sizes or more."
        raise DataError(f"{len(np.unique(points.rows))} sizes do not make a curve.", next_step=step)
    random = np.random.Generator(np.random.Philox(SEED))
    draws, units = np.unique(points.draw), np.unique(points.unit)
    resampled = []
    for _ in range(RESAMPLES):
        of_draw = random.multinomial(len(draws), np.full(len(draws), 1 / len(draws)))
        of_unit = random.multinomial(len(units), np.full(len(units), 1 / len(units)))
        documents = of_unit[np.searchsorted(units, points.unit)]
        weights = of_draw[np.searchsorted(draws, points.draw)].astype(np.float64)
        used = weights > 0
        if len(np.unique(points.rows[used])) < 3:  # draws whose sizes differ, and too few of them
            continue
        accuracy = points.right[used] @ documents / documents.sum()
        resampled.append(search(points.rows[used], accuracy, weights[used]))
    whole = law(points.rows, points.means, np.ones(len(points.rows)))
    return Curve(whole, tuple(resampled or [whole]), float(points.rows.max()), points.right.shape[1])


def law(rows: Numbers, accuracy: Numbers, weights: Numbers) -> Law:
    """Weighted least squares with 0 <= a <= 1 and b >= 0, so that it saturates and never falls."""
    from scipy.optimize import least_squares

    unit, start = rows.min(), search(rows, accuracy, weights)  # b in units of the gap at the smallest size
    scaled, root = rows / unit, np.sqrt(weights)

    def residuals(x: Numbers) -> Numbers:
        return np.asarray(root * (x[0] - x[1] * scaled ** -x[2] - accuracy))

    low, high = np.array([0.0, 0.0, LOWEST_C]), np.array([1.0, 2.0, HIGHEST_C])
    inside = np.clip([start.a, start.b / unit**start.c, start.c], low + 1e-6, high - 1e-6)
    a, b, c = least_squares(residuals, inside, bounds=(low, high), xtol=1e-12, ftol=1e-12).x
    return Law(float(a), float(b * unit**c), float(c))


def search(rows: Numbers, accuracy: Numbers, weights: Numbers) -> Law:
    """The same, with c on a grid: for each c the best a and b are known in closed form."""
    gaps = (rows / rows.min()) ** -GRID[:, None]  # (C, P)
    share = weights / weights.sum()
    mean_gap, mean = gaps @ share, float(accuracy @ share)
    spread, shared = (gaps**2) @ share - mean_gap**2, (gaps * accuracy) @ share - mean_gap * mean
    b = np.maximum(-shared / np.maximum(spread, 1e-12), 0.0)
    a = mean + b * mean_gap
    b = np.where(a > 1, np.maximum((gaps @ share - (gaps * accuracy) @ share) / ((gaps**2) @ share), 0.0), b)
    a = np.minimum(a, 1.0)
    best = int(np.argmin(((a[:, None] - b[:, None] * gaps - accuracy) ** 2) @ share))
    return Law(float(a[best]), float(b[best] * rows.min() ** GRID[best]), float(GRID[best]))


def answer(curve: Curve, want: float, what: str = "rows") -> Answer:
    """How many rows it takes to get `want` right, or that more of them will not do."""
    have, far = curve.have, FAR * curve.have
    here, there = curve.band(have), curve.band(far)
    rows = curve.law.need(want)
    low, high = _range([one.need(want) for one in curve.resampled])
    low, high = min(low, rows), max(high, rows)
    goal = f"{100 * want:.0f}%"
    if here.mean >= want:
        surely = "" if here.low >= want else f", though it may be {100 * here.low:.1f}%"
        text = f"{have:.0f} {what} are enough for {goal}: they give {100 * here.mean:.1f}%{surely}."
        return Answer(want, "there", _within(rows, far), _within(low, far), _within(high, far), text)
    if there.high < want:
        text = (
            f"More data of this kind will not get you there: with {far:.0f} {what}, {FAR} times what there is,"
            f" {100 * there.mean:.1f} [{100 * there.low:.1f}–{100 * there.high:.1f}]% would be right, not {goal}."
            " Mend the labels or the task, or take a larger model."
        )
        return Answer(want, "never", None, None, None, text)
    if rows > far:
        least = f", and at least {_round(low - have)} more," if have < low <= far else ""
        text = (
            f"Cannot tell how many {what} {goal} takes: more than {FAR} times what there is by the curve{least}"
            f" and so far it cannot be extrapolated. With {far:.0f} {what} expect {there.percent()}%; ask again then."
        )
        return Answer(want, "beyond", None, _within(low, far), None, text)
    most = f"{_round(high - have)}" if high <= far else f"more than {_round(far - have)}"
    text = (
        f"About {_round(rows - have)} more {what} for {goal}, {_round(max(low - have, 0))} to {most}"
        f" (95%), beside the {have:.0f} there are."
    )
    return Answer(want, "more", rows, low, _within(high, far), text)


def _range(needs: Sequence[float]) -> tuple[float, float]:
    """2.5% and 97.5% of numbers that may be infinite."""
    ranked = sorted(needs)
    return ranked[int(0.025 * len(ranked))], ranked[min(int(0.975 * len(ranked)), len(ranked) - 1)]


def _within(rows: float, far: float) -> float | None:
    return None if isinf(rows) or rows > far else rows


def _round(rows: float) -> str:
    """Two digits are more than is known."""
    return f"{float(f'{max(rows, 0):.2g}'):,.0f}"
