"""Which graded rows to learn from: good ones, each document once, not too many of a kind.

Rows that cannot be learned and near-duplicates go first (the best copy stays), then rows that miss
a condition, then rows over the cap. Ties fall by a seeded order. Left out: finding rows near an
evaluation document, which `contamination` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.errors import DataError
from offapi.randomness import order
from offapi.text.normalise import bare

GROUP = "group"
DEFAULT_THRESHOLD = 1.0
SLACK = 1e-9  # a mean of checks may fall short of 0.9 by rounding
NONE = -1  # a row without group, cap value or duplicate

UNGRADED = "could not be graded"
NO_ANSWER, NO_OBJECT = "without an answer", "whose answer is not one JSON object"
REFUSED, DUPLICATE = "near an evaluation document", "near-duplicate"
LOW, NOT_BEST, NOT_TOP, CAPPED = (
    "below the threshold",
    "not the best of its group",
    "not in the top",
    "over the cap",
)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Keep:
    """Conditions for a row to be kept; all that are given must hold.

    Without `threshold`, `best` and `top`, a row needs grade 1.
    """

    threshold: float | None = None  # the lowest grade
    best: int | None = None  # this many of each trace group
    top: float | None = None  # this fraction of all graded rows
    cap: int | None = None  # at most this many rows for each value of `cap_by`
    cap_by: str | None = None  # "group", or a field of the answer
    near_duplicates: bool = True  # of documents that are nearly the same, keep one

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold must be from 0 to 1, got {self.threshold}")
        if self.top is not None and not 0.0 < self.top <= 1.0:
            raise ValueError(f"top must be above 0 and at most 1, got {self.top}")
        for name in ("best", "cap"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if (self.cap is None) != (self.cap_by is None):
            raise ValueError(
                "cap and cap_by go together: cap is the number of rows for each value of cap_by"
                ' ("group" or a field)'
            )

    @property
    def lowest(self) -> float | None:
        """The threshold in force: the default where no condition is given."""
        unset = self.threshold is None and self.best is None and self.top is None
        return DEFAULT_THRESHOLD if unset else self.threshold

    @property
    def by_group(self) -> str:
        """The conditions on groups as a recipe writes them; "" without any."""
        conditions = []
        if self.best is not None:
            conditions.append(f"best = {self.best}")
        if self.cap_by == GROUP:
            conditions.append('cap_by = "group"')
        return " and ".join(conditions)


@dataclass(frozen=True)
class Columns:
    """Graded rows by column, (N,) each.

    Groups, cap values and clusters of near-duplicates are numbers, or NONE.
    """

    score: NDArray[np.float64]  # NaN: not graded
    has_answer: Mask
    group: NDArray[np.int64]
    cap_value: NDArray[np.int64]
    cluster: NDArray[np.int64]
    refused: Mask


def cap_value(
    group: str | None, answer: Mapping[str, Any] | None, cap_by: str | None
) -> str | None:
    """Return the group, or the field as normalised text, that the cap counts a row under.

    None is not capped.
    """
    if cap_by == GROUP:
        return group
    field = None if answer is None or cap_by is None else answer.get(cap_by)
    return None if field is None else bare(str(field))


def require_groups(keep: Keep, groups: Iterable[str | None], path: Path) -> None:
    """Raise DataError where `keep` goes by groups and no row of `path` has one.

    Every row would be kept then, whatever its grade. Rows without a group are not grouped by their
    prompts: near-duplicates are dropped anyway, and the best of them stays.
    """
    known = iter(groups) if keep.by_group else iter(())
    first = next(known, GROUP)
    if first is None and all(group is None for group in known):
        step = 'Use a threshold or top, or give the traces of one prompt the same "group".'
        what = f"no row has a group, so {keep.by_group} would drop none."
        raise DataError.at(what, path=path, field=GROUP, next_step=step)


def ranking(score: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return each row's rank, the best first; the seed breaks ties."""
    tie = np.empty(len(score), np.int64)
    tie[np.array(order(seed, 0, len(score)), np.int64)] = np.arange(len(score))
    rank = np.empty(len(score), np.int64)
    rank[np.lexsort((tie, -np.nan_to_num(score, nan=-1.0)))] = np.arange(len(score))
    return rank


def choose(rows: Columns, keep: Keep, rank: NDArray[np.int64]) -> tuple[Mask, dict[str, int]]:
    """Return which of `rows` are kept, and how many were dropped by their first reason."""
    score = np.nan_to_num(rows.score, nan=-1.0)
    mask, dropped = np.ones(len(score), bool), {}

    def drop(reason: str, which: Mask) -> None:
        if count := int((mask & which).sum()):
            dropped[reason] = count
        mask[which] = False

    ungraded = np.isnan(rows.score)
    drop(NO_ANSWER, ~rows.has_answer & ungraded)
    drop(NO_OBJECT, ~rows.has_answer)
    drop(UNGRADED, ungraded)
    graded = int((~np.isnan(rows.score)).sum())
    drop(REFUSED, rows.refused)
    drop(DUPLICATE, _copies(rows, rank, mask, keep))
    distinct = mask.copy()
    if keep.lowest is not None:
        drop(LOW, score < keep.lowest - SLACK)
    if keep.best is not None:
        drop(NOT_BEST, ~_first(rows.group, rank, distinct, keep.best))
    if keep.top is not None:
        whole = np.zeros(len(score), np.int64)
        drop(NOT_TOP, ~_first(whole, rank, distinct, max(1, round(keep.top * graded))))
    if keep.cap is not None:
        drop(CAPPED, ~_first(rows.cap_value, rank, mask.copy(), keep.cap))
    return mask, dropped


def _copies(rows: Columns, rank: NDArray[np.int64], mask: Mask, keep: Keep) -> Mask:
    """Return the near-duplicates of a better row.

    With `best`, answers of one group do not count as copies of each other.
    """
    if not keep.near_duplicates:
        return np.zeros(len(rank), bool)
    first = _first(rows.cluster, rank, mask, 1)
    if keep.best is None:
        return ~first
    leads = first & mask & (rows.cluster != NONE) & (rows.group != NONE)
    group_of = dict(zip(rows.cluster[leads].tolist(), rows.group[leads].tolist(), strict=True))
    pairs = zip(rows.cluster.tolist(), rows.group.tolist(), strict=True)
    same = np.array([group_of.get(cluster) == group != NONE for cluster, group in pairs], bool)
    copies: Mask = ~(first | same)
    return copies


def _first(key: NDArray[np.int64], rank: NDArray[np.int64], mask: Mask, count: int) -> Mask:
    """Return the `count` best rows of `mask` for each `key`, and all rows without a key."""
    chosen: Mask = key == NONE
    among = np.flatnonzero(mask & ~chosen)
    among = among[np.lexsort((rank[among], key[among]))]
    starts = (
        np.concatenate([[True], key[among][1:] != key[among][:-1]])
        if len(among)
        else np.zeros(0, bool)
    )
    place = np.arange(len(among)) - np.maximum.accumulate(
        np.where(starts, np.arange(len(among)), 0)
    )
    chosen[among[place < count]] = True
    return chosen
