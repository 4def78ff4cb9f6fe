"""Percentile intervals by the bootstrap over documents (Efron 1979), resampling groups whole.

Documents with the same outcome are drawn together by one multinomial, so a million documents with
few kinds of outcome cost as much as those kinds. Left out: bias correction (BCa).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offapi.stats import clusters
from offapi.stats.interval import Interval, wilson

RESAMPLES, SEED = 10_000, 0
CELLS = 4_000_000  # the most numbers held at once

Numbers = NDArray[np.float64]
Groups = Sequence[str | None]


def count(groups: Groups) -> int:
    """Return the number of units to resample: groups, and documents without a group."""
    return len(sums(np.zeros((len(groups), 1)), groups)[0])


def sums(values: ArrayLike, groups: Groups | None) -> tuple[Numbers, Numbers]:
    """Return the column sums of `values` (n, m) by group, shape (groups, m), and each group's size.

    A document whose group is None is a group of its own.
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
    """Return column means of `values` (n, m) over draws with replacement, shape (resamples, m)."""
    totals, sizes = sums(values, groups)
    kinds, counts = np.unique(np.column_stack([totals, sizes]), axis=0, return_counts=True)
    draw = np.random.Generator(np.random.Philox(seed))
    resampled = np.empty((resamples, kinds.shape[1] - 1))
    step = max(1, CELLS // len(kinds))
    for at in range(0, resamples, step):
        times = draw.multinomial(len(totals), counts / len(totals), size=min(step, resamples - at))
        drawn = times @ kinds
        resampled[at : at + step] = drawn[:, :-1] / drawn[:, -1:]
    return resampled


def intervals(
    values: ArrayLike, groups: Groups | None = None, level: float = 0.95
) -> list[Interval]:
    """Return each column's mean with the interval that holds `level` of the resampled means.

    Where documents share groups, it is never narrower than Student's t makes it: resampling a few
    groups is too confident.
    """
    columns = np.asarray(values, np.float64)
    low, high = np.quantile(means(columns, groups), ((1 - level) / 2, (1 + level) / 2), axis=0)
    totals, sizes = sums(columns, groups)
    if 1 < len(totals) < len(columns):
        reach = clusters.quantile(len(totals)) * clusters.errors(totals, sizes)
        low = np.minimum(low, columns.mean(axis=0) - reach)
        high = np.maximum(high, columns.mean(axis=0) + reach)
    return [
        Interval(float(mean), float(below), float(above))
        for mean, below, above in zip(columns.mean(axis=0), low, high, strict=True)
    ]


def rates(values: ArrayLike, groups: Groups | None = None) -> list[Interval]:
    """Return `intervals` of columns in [0, 1]; where documents share groups, `clusters.rate`'s.

    Without any spread, for example where all groups are right, it is Wilson's interval that counts
    groups, because few groups show less than many documents.
    """
    columns = np.asarray(values, np.float64)
    totals, sizes = sums(columns, groups)
    if len(totals) == len(columns):
        return [_widen(interval, len(columns)) for interval in intervals(columns)]
    return _clustered(totals, sizes)


def shares(right: Sequence[ArrayLike], groups: Groups) -> list[Interval]:
    """Return the share of True in each of `right`, with an interval.

    It is Wilson's if no documents share a group. If some do, it is that of `rates`, but never
    narrower than Wilson's over documents.
    """
    columns = np.array(right, np.float64).T
    if count(groups) == len(columns):
        return [wilson(int(column.sum()), len(column)) for column in columns.T]
    return _clustered(*sums(columns, groups), most=len(columns))


def _clustered(totals: Numbers, sizes: Numbers, most: float = math.inf) -> list[Interval]:
    """Return the rates of columns, from sums by group; each counts as at most `most` documents."""
    units = len(totals)
    found = clusters.errors(totals, sizes) if units > 1 else np.zeros(totals.shape[1])
    rates = []
    for total, error in zip(totals.sum(axis=0), found, strict=True):
        mean = float(total / sizes.sum())
        interval = clusters.rate(mean, float(error), units, most)
        rates.append(interval or _widen(Interval(mean, mean, mean), units))
    return rates


def _widen(interval: Interval, n: int) -> Interval:
    if interval.high > interval.low:
        return interval
    right = round(interval.mean * n, 6)
    return Interval(interval.mean, wilson(floor(right), n).low, wilson(ceil(right), n).high)
