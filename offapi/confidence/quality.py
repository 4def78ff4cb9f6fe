"""How good a field's confidence is: what it separates, what it means, what it lets one accept.

All figures come from cross-fitted probabilities. Left out: the promise itself
(`offapi.confidence.promise`), and drawing (`offapi.report`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.stats.auroc import auroc
from offapi.stats.interval import Interval, wilson
from offapi.stats.learn_then_test import accept_from

ERRORS = (0.01, 0.05, 0.10)
PARTS, BINS, WORST = 10, 5, 5

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Ranking:
    """What one score lets one accept.

    `wrong` is the share of wrong answers among the surest tenth, two tenths ... of the documents,
    `accepted` the share of documents that may be accepted at each of ERRORS.
    """

    auroc: Interval | None  # None where all are right, or all wrong
    wrong: tuple[Interval, ...]
    accepted: tuple[Interval, ...]


@dataclass(frozen=True)
class Bin:
    """A fifth of the documents, by confidence: its mean, and the share that is right."""

    confidence: float
    right: Interval


@dataclass(frozen=True)
class ConfidenceQuality:
    """The figures of a field, or of all fields of a document."""

    documents: int
    right: Interval
    model: Ranking
    logprob: Ranking  # the control: the field's log-probability alone
    bins: tuple[Bin, ...]
    surest_wrong: tuple[str, ...]  # ids of the wrong answers with the highest confidence


def measure(
    ids: Sequence[str], scores: Numbers, logprobs: Numbers, right: Flags, level: float
) -> ConfidenceQuality:
    """Return the figures of N documents, one or more; `level` is that of each threshold's test."""
    order = np.argsort(-scores, kind="stable")
    wrong = [ids[i] for i in order if not right[i]]
    return ConfidenceQuality(
        len(ids),
        wilson(int(right.sum()), len(ids)),
        rank(scores, right, level),
        rank(logprobs, right, level),
        tuple(_bins(scores[order], right[order])),
        tuple(wrong[:WORST]),
    )


def rank(scores: Numbers, right: Flags, level: float) -> Ranking:
    """Return what a score of N documents lets one accept."""
    ranked = right[np.argsort(-scores, kind="stable")]
    counts = [max(1, round(len(ranked) * part / PARTS)) for part in range(1, PARTS + 1)]
    wrong = tuple(wilson(int((~ranked[:count]).sum()), count) for count in counts)
    tested = [accept_from(scores, right, error, level) for error in ERRORS]
    accepted = [each.accepted if each.at is not None else 0 for each in tested]
    shares = tuple(wilson(count, len(right)) for count in accepted)
    return Ranking(auroc(scores, right), wrong, shares)


def _bins(scores: Numbers, right: Flags) -> list[Bin]:
    parts = zip(np.array_split(scores, BINS), np.array_split(right, BINS), strict=True)
    return [
        Bin(float(some.mean()), wilson(int(flags.sum()), len(flags)))
        for some, flags in parts
        if len(some)
    ]
