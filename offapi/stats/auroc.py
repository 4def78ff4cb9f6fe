"""How well scores separate right from wrong: the area under the ROC curve with its interval.

The error is DeLong's (Biometrics 44, 1988); the interval is Wilson's for as many documents as have
that error, which stays within [0, 1]. Left out: comparing two areas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offapi.stats.interval import Interval, wilson


def auroc(
    scores: Sequence[float] | NDArray[np.float64], right: Sequence[bool] | NDArray[np.bool_]
) -> Interval | None:
    """Return the probability that a right answer scores above a wrong one, ties counting half.

    None where all are right, or all wrong. Without any overlap, the interval is that of as many
    documents as the smaller side has.
    """
    values, flags = np.asarray(scores, np.float64), np.asarray(right, bool)
    above, below = values[flags], np.sort(values[~flags])
    if not len(above) or not len(below):
        return None
    of_right = _share_below(above, below)
    of_wrong = 1.0 - _share_below(values[~flags], np.sort(above))
    area = float(of_right.mean())
    variance = sum(
        float(each.var(ddof=1)) / len(each) for each in (of_right, of_wrong) if len(each) > 1
    )
    smaller = min(len(above), len(below))
    documents = area * (1.0 - area) / variance if variance > 0 else float(smaller)
    return wilson(area * documents, documents)


def _share_below(values: NDArray[np.float64], ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each value the share of `ranked`, which is sorted, below it; ties count half."""
    low = np.searchsorted(ranked, values, side="left")
    high = np.searchsorted(ranked, values, side="right")
    return np.asarray((low + high) / 2.0 / len(ranked))
