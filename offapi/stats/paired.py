"""Two systems on the same documents: is one better, and what could this many documents show?

A document's difference is A's score less B's: -1, 0 or 1 for a field, steps in between for a
mean of fields. Left out: unpaired samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from offapi.stats.interval import Z95, Interval
from offapi.stats.sample_size import EIGHTY_PERCENT, FEWEST

Integers = NDArray[np.int64]

DRAWS = 10_000  # of signs


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p of McNemar's test (1947): b documents
    only A has right, c only B; 1 where there are none.
    """
    from scipy.stats import binomtest

    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def sign_flip(differences: Integers) -> float:
    """Exact two-sided p of the sign-flip test: how often random signs make |sum| as large as it is.

    With differences of -1, 0 and 1 it is McNemar's test; sums over groups keep it valid where
    documents of a group are alike. From the product of cosines that is the sum's characteristic
    function.
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
    chances = np.fft.ifft(wave).real  # of the sums 0, 1 ... top, -top ... -1
    reached = abs(int(differences.sum()))
    return float(np.clip(chances[reached : period - reached + 1].sum(), 0.0, 1.0))


def best_of(looks: NDArray[np.float64], chosen: int) -> float:
    """One-sided p of column `chosen` of `looks` (n, k),
    the best of k differences of the same n documents.

    How often random signs, one a document, make any column's sum as large as the chosen one's: the
    maximum's own distribution (Westfall and Young 1993), so that choosing is allowed for. 10,000
    draws.
    """
    draw = np.random.Generator(np.random.Philox(0))
    signs = draw.integers(0, 2, (DRAWS, len(looks)), np.int8) * 2.0 - 1.0
    reached = (signs @ looks).max(axis=1) >= looks[:, chosen].sum() - 1e-9
    return float((reached.sum() + 1) / (DRAWS + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """p values for several questions at once (Holm 1979):
    reject those below the level as if each were alone.
    """
    order = np.argsort(ps, kind="stable")
    scaled = np.asarray(ps)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(p) for p in adjusted]


def detectable(differences: NDArray[np.float64], n: int, step: float = 1.0) -> float:
    """The smallest true difference of rates that this
    test set shows with 80% power at the 5% level.

    2.8 * sqrt(discordance / n), discordance being the share of documents on which the two
    differ (Connor, Biometrics 43, 1987; Miller, arXiv 2411.00640, section 5). `differences`
    are one for each independent unit, documents or sums over groups, of `n` documents: the
    general form is 2.8 * sqrt(sum of squares) / n. Never below what an exact test can show
    at all, `FEWEST` documents that differ by the smallest `step` one can (1 / fields for a mean
    of fields), and 1 with too few units to show anything.
    """
    if len(differences) < FEWEST:
        return 1.0
    return min(1.0, max(EIGHTY_PERCENT * sqrt(float(differences @ differences)), FEWEST * step) / n)


def score_interval(b: float, c: float, n: float) -> Interval:
    """(b - c) / n with Tango's score interval (Statistics
    in Medicine 17, 1998), honest also where b + c is small.
    """
    from scipy.optimize import brentq

    mean = (b - c) / n

    def standardised(delta: float) -> float:
        """How many standard errors the difference lies above `delta`."""
        half = (2 * n - b + c) * delta - b - c
        shared = (sqrt(half * half + 8 * n * c * delta * (1 - delta)) - half) / (4 * n)
        return float(
            (b - c - n * delta) / sqrt(max(n * (2 * shared + delta * (1 - delta)), 1e-300))
        )

    edge = 1 - 1e-12
    low = -1.0 if mean <= -edge else brentq(lambda delta: standardised(delta) - Z95, -edge, mean)
    high = 1.0 if mean >= edge else brentq(lambda delta: standardised(delta) + Z95, mean, edge)
    return Interval(mean, float(low), float(high))
