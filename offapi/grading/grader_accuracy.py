"""Grade the grader: how often is a row right that
scores so high, and how many right rows score so high?

Right means that every field the task compares equals gold, or that a person said so. A row that
stands for several (drawn from its score's stratum) counts as several, with an interval for the
fewer rows that were really looked at (Kish 1965). Left out: that intervals are for one threshold
each, while the recommended one is the best of some.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from offapi.grading.keep import SLACK
from offapi.stats.interval import Z95, Interval, wilson

MOST_LEVELS = 8
GRID = (
    0.0,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.95,
    1.0,
)  # thresholds, where the scores are too many to take each

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Level:
    """Keeping what scores `threshold` or more, as far as the truth is known."""

    threshold: float
    judged: int  # rows that score so high and whose truth is known
    precision: Interval | None  # share of them that are right; None where there are none
    recall: Interval | None  # share of all right rows that score so high


@dataclass(frozen=True)
class Agreement:
    """What the grader's scores are worth, and the threshold for a wanted precision.

    `threshold`: the lowest whose precision is at least
    `wanted`. `certain`: so is the lower end of its interval.
    """

    source: str  # of the truth: "gold", "review" or "gold and review"
    judged: int
    levels: tuple[Level, ...]
    wanted: float
    threshold: float | None
    certain: bool

    def lines(self) -> list[str]:
        """The recommendation in words."""
        best = max((level for level in self.levels if level.precision), key=_low, default=None)
        if best is None or best.precision is None:
            return []
        aim = f"{100 * self.wanted:g}%"
        if self.threshold is None:
            found = f"{best.threshold:g} with {best.precision.percent()}%"
            return [
                f"No threshold gives {aim} right; the best is {found}. Add a check that sees what"
                " is still wrong."
            ]
        level = next(level for level in self.levels if level.threshold == self.threshold)
        assert level.precision is not None
        told = (
            f"At {level.threshold:g} and above, {level.precision.percent()}% are right in every"
            " field"
        )
        if self.certain:
            return [f"{told}, so --threshold {level.threshold:g} gives the {aim} you want."]
        return [
            f"{told}. {level.judged} judged rows cannot tell whether that is"
            f" {aim}{_more(level, self.wanted)}."
        ]

    def table(self) -> list[tuple[str, str, str, str]]:
        """For people: threshold, judged rows, precision, recall."""
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
    """`score` and `right` of the rows whose truth is known, and for how many rows each stands.

    `unseen`: scores of rows that none of these stands for; no precision is given where they count.
    """
    weight = np.ones(len(score)) if weight is None else weight
    lowest = -1.0 if unseen is None or not len(unseen) else float(unseen.max())
    levels = tuple(_level(t, score, right, weight, lowest) for t in thresholds(score))
    sure = [
        level.threshold for level in levels if level.precision and level.precision.low >= wanted
    ]
    seems = [
        level.threshold for level in levels if level.precision and level.precision.mean >= wanted
    ]
    threshold = min(sure or seems, default=None)
    return Agreement(source, len(score), levels, wanted, threshold, bool(sure))


def thresholds(score: Scores) -> tuple[float, ...]:
    """Every score there is, or where they are many a grid."""
    each = sorted(
        {floor(s * 1e4 + 1e-6) / 1e4 for s in score.tolist()}
    )  # down, so that a shown one holds its rows
    return tuple(each) if len(each) <= MOST_LEVELS else GRID


def rate(right: Mask, weight: Scores | None = None) -> Interval | None:
    """The weighted share of True with its score interval (Wilson 1927); None of nothing."""
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
    """How many judged rows would settle it, if the rate stays; nothing where that is no help."""
    assert level.precision is not None
    over = level.precision.mean - wanted
    if over <= 0.005:
        return ""
    needed = ceil(Z95 * Z95 * wanted * (1 - wanted) / over**2)
    return f"; about {needed:,} would, if the rate stays"


def _percent(interval: Interval | None) -> str:
    return interval.percent() if interval else "not known"
