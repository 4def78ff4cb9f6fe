"""Which rows are known to be right or wrong, by gold or by a person, and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.grading.grader_accuracy import rate
from offapi.grading.table import RIGHT, UNKNOWN, Table
from offapi.stats.interval import Interval

STRATA = (0.5, 0.8, 0.9, 1.0)  # lower ends; a person is asked about each band of scores

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """What is known of all rows, (N,) each except `unseen`.

    `weight` is 1 with gold: rows with gold are taken for a fair sample of all.
    """

    known: Mask
    right: Mask  # False where not known
    weight: NDArray[np.float64]
    unseen: NDArray[np.float64]  # scores of the rows that no known row stands for
    source: str

    def rate(self, among: Mask) -> Interval | None:
        """Return the share of right rows in `among`; None where none is known."""
        rows = among & self.known
        return rate(self.right[rows], self.weight[rows])


def from_gold(table: Table) -> Truth | None:
    """Return what gold says; None where no row has any."""
    right = table["right"]
    known = right != UNKNOWN
    if not known.any():
        return None
    return Truth(known, right == RIGHT, np.ones(len(table)), np.empty(0), "gold")


def from_reviews(table: Table, answers: Mapping[int, bool]) -> Truth | None:
    """Return what a person said of some rows, by index; each stands for its band of scores.

    None without any.
    """
    if not answers:
        return None
    known, right = np.zeros(len(table), bool), np.zeros(len(table), bool)
    known[list(answers)] = True
    right[list(answers)] = list(answers.values())
    graded = ~np.isnan(table["score"])
    band = bands(table["score"])
    sizes, seen = (
        np.bincount(band[rows], minlength=len(STRATA) + 1) for rows in (graded, graded & known)
    )
    weight = (sizes / np.maximum(seen, 1))[band]
    return Truth(known, right, weight, table["score"][graded & (seen[band] == 0)], "review")


def bands(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return each score's band, 0 for the lowest; the band of an ungraded row means nothing."""
    return np.searchsorted(np.array(STRATA) - 1e-9, score, "right")
