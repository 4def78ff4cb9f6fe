"""The bootstrap over documents (Efron 1979), percentile
intervals, whole groups of documents at a time.

Documents that are alike are drawn together by one multinomial, so that a million documents
with a few kinds of outcome cost what a few kinds cost. Left out: bias correction (BCa).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offapi.stats.interval import Interval, wilson

RESAMPLES, SEED = 10_000, 0
CELLS = 4_000_000  # numbers held at once

Numbers = NDArray[np.float64]
Groups = Sequence[str | None]


def count(groups: Groups) -> int:
    """How many units there are to resample."""
    return len(sums(np.zeros((len(groups), 1)), groups)[0])


def sums(values: ArrayLike, groups: Groups | None) -> tuple[Numbers, Numbers]:
    """Column sums of `values` (n, m) by group, shape (groups, m), and each group's size.

    None stands alone.
    """
    values = np.asarray(values, np.float64)
    if groups is None or not any(group is not None for group in groups):
        return values, np.ones(len(values))
    names: dict[object, int] = {}
    index = [
        names.setdefault(i if group is None else group, len(names))
        for i, group in enumerate(groups)
    ]
    totals = np.zeros((len(names), values.shape[1]))
    np.add.at(totals, index, values)
    return totals, np.bincount(index).astype(np.float64)


def means(
    values: ArrayLike, groups: Groups | None = None, resamples: int = RESAMPLES, seed: int = SEED
) -> Numbers:
    """Column means of `values` (n, m) over `resamples`
    draws with replacement, shape (resamples, m).
    """
    totals, sizes = sums(values, groups)
    kinds, counts = np.unique(np.column_stack([totals, sizes]), axis=0, return_counts=True)
    draw = np.random.Generator(np.random.Philox(seed))
    found = np.empty((resamples, kinds.shape[1] - 1))
    step = max(1, CELLS // len(kinds))
    for at in range(0, resamples, step):
        times = draw.multinomial(len(totals), counts / len(totals), size=min(step, resamples - at))
        drawn = times @ kinds
        found[at : at + step] = drawn[:, :-1] / drawn[:, -1:]
    return found


def intervals(
    values: ArrayLike, groups: Groups | None = None, level: float = 0.95
) -> list[Interval]:
    """Each column's mean with its percentile interval, which holds `level` of the resamples."""
    columns = np.asarray(values, np.float64)
    low, high = np.quantile(means(columns, groups), ((1 - level) / 2, (1 + level) / 2), axis=0)
    return [
        Interval(float(m), float(a), float(b))
        for m, a, b in zip(columns.mean(axis=0), low, high, strict=True)
    ]


def rates(values: ArrayLike, groups: Groups | None = None) -> list[Interval]:
    """`intervals` of columns in [0, 1]; Wilson's on the
    number of groups where the bootstrap sees no spread.

    It sees none where all groups are alike, as all right: few groups show less than many documents.
    """
    columns = np.asarray(values, np.float64)
    units = len(columns) if groups is None else count(groups)
    return [_wide(found, units) for found in intervals(columns, groups)]


def shares(right: Sequence[ArrayLike], groups: Groups) -> list[Interval]:
    """The share of True in each of `right`: Wilson's interval where every document stands alone.

    Where some share a group it is that of `rates`, and no narrower than Wilson's over documents,
    since few groups make a bootstrap too sure.
    """
    columns = np.array(right, np.float64).T
    alone = [wilson(int(column.sum()), len(column)) for column in columns.T]
    if count(groups) == len(columns):
        return alone
    pairs = zip(rates(columns, groups), alone, strict=True)
    return [
        Interval(one.mean, min(found.low, one.low), max(found.high, one.high))
        for found, one in pairs
    ]


def _wide(found: Interval, n: int) -> Interval:
    if found.high > found.low:
        return found
    right = round(found.mean * n, 6)
    return Interval(found.mean, wilson(floor(right), n).low, wilson(ceil(right), n).high)
