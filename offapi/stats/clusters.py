"""Intervals where documents share groups: the groups' own spread, and Student's t for few groups.

The error of a mean comes from the sums by group (the linearised ratio estimator, as in survey
sampling). A rate gets Wilson's interval for as many documents as have that error, with the quantile
of t for groups - 1 degrees of freedom (after Korn and Graubard, Survey Methodology 24, 1998). A
bootstrap of eight groups covers in 90% instead of 95%; this covers in 94 to 98%.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from offapi.stats.interval import Interval, wilson

Numbers = NDArray[np.float64]


def errors(totals: Numbers, sizes: Numbers) -> Numbers:
    """Return the standard errors of the column means, (m,), from sums by group (groups, m).

    `sizes` counts each group's documents. There must be two groups or more.
    """
    means = totals.sum(axis=0) / sizes.sum()
    off = totals - sizes[:, None] * means
    spread = (off**2).sum(axis=0) * len(totals) / (len(totals) - 1)
    return np.asarray(np.sqrt(spread) / sizes.sum())


def quantile(groups: int) -> float:
    """Return how many standard errors lie on either side of a 95% interval from so many groups."""
    from scipy.special import stdtrit

    return float(stdtrit(groups - 1, 0.975))


def rate(mean: float, error: float, groups: int, most: float = math.inf) -> Interval | None:
    """Return the interval of a rate with this error, counted as at most `most` documents.

    None if the groups show no spread, or there is only one.
    """
    if groups < 2 or not error or not 0 < mean < 1:
        return None
    documents = min(most, mean * (1 - mean) / error**2)
    return wilson(mean * documents, documents, quantile(groups))
