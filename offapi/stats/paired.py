"""Two systems on the same documents: is one better, and what could this many documents show?

A document's difference is A's score minus B's: -1, 0 or 1 for a field, steps in between for a mean
of fields. Left out: unpaired samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from offapi.stats import sample_size
from offapi.stats.interval import Z95, Interval
from offapi.stats.sample_size import FEWEST

Integers = NDArray[np.int64]

DRAWS = 10_000  # random sign vectors


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947); 1 if no document differs.

    Only A has `b` documents right, only B has `c`.
    """
    from scipy.stats import binomtest

    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def sign_flip(differences: Integers) -> float:
    """Return the exact two-sided p of the sign-flip test.

    It is how often random signs make |sum| at least as large as it is. With differences of -1, 0
    and 1 it is McNemar's test; sums over groups keep it valid if documents of a group are alike.
    Computed from the sum's characteristic function, a product of cosines.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    top = int(sizes @ counts)
    if top == 0:
        return 1.0
    period = 2 * top + 1
    angles = 2 * np.pi * np.arange(period) / period
    wave = np.ones(period)
    for size, count in zip(sizes, counts, strict=True):
        wave *= np.cos(angles * size) ** count
    chances = np.fft.ifft(wave).real  # probabilities of the sums 0, 1 ... top, -top ... -1
    reached = abs(int(differences.sum()))
    return float(np.clip(chances[reached : period - reached + 1].sum(), 0.0, 1.0))


def best_of(looks: NDArray[np.float64], chosen: int) -> float:
    """Return the one-sided p of column `chosen`, the best of the k columns of `looks` (n, k).

    It is how often random signs, one per document, make any column's sum as large as the chosen
    one's. That is the distribution of the maximum (Westfall and Young 1993), so the choice is
    accounted for. 10,000 draws.
    """
    draw = np.random.Generator(np.random.Philox(0))
    signs = draw.integers(0, 2, (DRAWS, len(looks)), np.int8) * 2.0 - 1.0
    reached = (signs @ looks).max(axis=1) >= looks[:, chosen].sum() - 1e-9
    return float((reached.sum() + 1) / (DRAWS + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values corrected for several questions at once (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    scaled = np.asarray(ps)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(p) for p in adjusted]


def detectable(differences: NDArray[np.float64], n: int, step: float = 1.0) -> float:
    """Return the smallest true difference of rates that this test set shows, 80% power, 5% level.

    (2.8 * sqrt(differing) + 1) / n, `differing` being the documents on which the two differ
    (Connor, Biometrics 43, 1987; Miller, arXiv 2411.00640, section 5); the 1 is what an exact test
    loses to its steps (Edwards, Psychometrika 13, 1948). `differences` has one number per
    independent unit, documents or sums over groups, of `n` documents: the general form is (2.8 *
    sqrt(sum of squares) + `step`) / n, a step being the smallest possible difference (1 / fields
    for a mean of fields). It is never below what an exact test can show at all: `EXPECTED`
    documents that differ by a step. It is 1 with too few units to show anything.
    """
    if len(differences) < FEWEST:
        return 1.0
    return sample_size.difference(float(differences @ differences), n, step)


def score_interval(b: float, c: float, n: float) -> Interval:
    """Return (b - c) / n with Tango's score interval (Statistics in Medicine 17, 1998).

    It keeps its coverage also when b + c is small.
    """
    from scipy.optimize import brentq

    mean = (b - c) / n

    def standardised(delta: float) -> float:
        """Return how many standard errors the difference lies above `delta`."""
        half = (2 * n - b + c) * delta - b - c
        shared = (sqrt(half * half + 8 * n * c * delta * (1 - delta)) - half) / (4 * n)
        return float(
            (b - c - n * delta) / sqrt(max(n * (2 * shared + delta * (1 - delta)), 1e-300))
        )

    edge = 1 - 1e-12
    low = -1.0 if mean <= -edge else brentq(lambda delta: standardised(delta) - Z95, -edge, mean)
    high = 1.0 if mean >= edge else brentq(lambda delta: standardised(delta) + Z95, mean, edge)
    return Interval(mean, float(low), float(high))
