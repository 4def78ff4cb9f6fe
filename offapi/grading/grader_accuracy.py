"""Precision and recall of the grader: how often a row that scores high is right.

A row is right if every field the task compares equals gold, or if a person said so. A reviewed row,
drawn from its score's stratum, stands for several; its interval uses the effective sample size
(Kish 1965). Left out: a correction for the choice of the best threshold; each interval is for one
threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from offapi.grading.keep import SLACK
from offapi.stats.interval import Z95, Interval, wilson
from offapi.text.display import plural

MOST_LEVELS = 8
# thresholds to show where there are too many scores to show each
GRID = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Level:
    """What keeping rows that score `threshold` or more gives, as far as the truth is known."""

    threshold: float
    judged: int  # rows at or above the threshold whose truth is known
    precision: Interval | None  # share of them that are right; None where there are none
    recall: Interval | None  # share of all right rows that score at least the threshold


@dataclass(frozen=True)
class Agreement:
    """How well the grader's scores agree with the truth, and which threshold to use.

    `threshold` is the lowest one whose precision is at least `wanted`; `certain` says whether the
    lower end of its interval is too.
    """

    source: str  # of the truth: "gold", "review" or "gold and review"
    judged: int
    levels: tuple[Level, ...]
    wanted: float
    threshold: float | None
    certain: bool

    def lines(self) -> list[str]:
        """Return the recommendation in words."""
        best = max((level for level in self.levels if level.precision), key=_low, default=None)
        if best is None or best.precision is None:
            return []
        aim = f"{100 * self.wanted:g}%"
        if self.threshold is None:
            closest = f"{best.threshold:g} with {best.precision.percent()}%"
            return [
                f"No threshold gives {aim} right; the best is {closest}. Add a check that catches"
                " the errors that remain."
            ]
        level = next(level for level in self.levels if level.threshold == self.threshold)
        assert level.precision is not None
        measured = (
            f"At {level.threshold:g} and above, {level.precision.percent()}% are right in every"
            " field"
        )
        if self.certain:
            return [f"{measured}, so --threshold {level.threshold:g} gives the {aim} you want."]
        rows = plural(level.judged, "row with a known answer", "rows with a known answer")
        return [f"{measured}, but {rows} cannot confirm {aim}{_more(level, self.wanted)}."]

    def table(self) -> list[tuple[str, str, str, str]]:
        """Return rows for people: threshold, rows with a known answer, precision, recall."""
        return [
            (
                f"{level.threshold:g}",
                f"{level.judged:,}",
                _percent(level.precision),
                _percent(level.recall),
            )
            for level in self.levels
        ]


def agree(
    score: Scores,
    right: Mask,
    wanted: float,
    source: str,
    weight: Scores | None = None,
    unseen: Scores | None = None,
) -> Agreement:
    """Compare the scores of rows whose truth is known with that truth.

    `weight` is the number of rows that each stands for. `unseen` holds scores of rows that none of
    these stands for; no precision is given where they count.
    """
    weight = np.ones(len(score)) if weight is None else weight
    lowest = -1.0 if unseen is None or not len(unseen) else float(unseen.max())
    levels = tuple(_level(t, score, right, weight, lowest) for t in thresholds(score))
    certain = [
        level.threshold for level in levels if level.precision and level.precision.low >= wanted
    ]
    likely = [
        level.threshold for level in levels if level.precision and level.precision.mean >= wanted
    ]
    threshold = min(certain or likely, default=None)
    return Agreement(source, len(score), levels, wanted, threshold, bool(certain))


def thresholds(score: Scores) -> tuple[float, ...]:
    """Return every score that occurs, or a grid where there are many."""
    # rounded down, so that a displayed threshold still includes its rows
    distinct = sorted({floor(s * 1e4 + 1e-6) / 1e4 for s in score.tolist()})
    return tuple(distinct) if len(distinct) <= MOST_LEVELS else GRID


def rate(right: Mask, weight: Scores | None = None) -> Interval | None:
    """Return the weighted share of True with its Wilson (1927) interval; None for no rows."""
    weight = np.ones(len(right)) if weight is None else weight
    if not len(right):
        return None
    mean, n = float(weight @ right / weight.sum()), float(weight.sum() ** 2 / (weight @ weight))
    return wilson(mean * n, n)


def _level(threshold: float, score: Scores, right: Mask, weight: Scores, lowest: float) -> Level:
    above = score >= threshold - SLACK
    precision = None if lowest >= threshold else rate(right[above], weight[above])
    recall = rate(above[right], weight[right]) if lowest < 0 else None
    return Level(threshold, int(above.sum()), precision, recall)


def _low(level: Level) -> float:
    return level.precision.low if level.precision else 0.0


def _more(level: Level, wanted: float) -> str:
    """Return how many such rows would confirm it at this rate; "" where more would not."""
    assert level.precision is not None
    over = level.precision.mean - wanted
    if over <= 0.005:
        return ""
    needed = ceil(Z95 * Z95 * wanted * (1 - wanted) / over**2)
    return f"; about {needed:,} would confirm it at this rate"


def _percent(interval: Interval | None) -> str:
    return interval.percent() if interval else "unknown"
