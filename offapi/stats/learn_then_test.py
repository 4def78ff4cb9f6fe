"""From which score on answers are accepted, so that at most a given share of them is wrong.

Learn then test (Angelopoulos et al., arXiv 2110.01052): thresholds are tested from a strict one on,
each by the exact binomial p-value of "more than `error` of the accepted are wrong", until one fails
(fixed-sequence testing), so the whole sequence errs with probability `level` at most. A threshold
counts only where one more wrong answer becomes allowed: 59 documents can promise 5% with none
wrong, 93 with one. The sequence begins where the scores, read as probabilities, make a pass
likeliest; that reads no outcome. Left out: scores fitted to the same documents, which must be
cross-fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log, log1p

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Tested:
    """The loosest score that passed; `accepted` documents reach it, `wrong` of those are wrong.

    `at` is None where none passed; the counts are then those of the first one that was tested.
    """

    at: float | None
    accepted: int
    wrong: int


def documents_needed(error: float, level: float) -> int:
    """Return how many accepted documents can promise `error` at all, if none is wrong."""
    return ceil(round(log(level) / log1p(-error), 9))


@lru_cache(maxsize=256)
def allowed_steps(error: float, level: float, documents: int) -> tuple[int, ...]:
    """Return the fewest documents at which 0, 1, 2 ... may be wrong, up to `documents`."""
    from scipy.stats import binom

    counts = np.arange(1, documents + 1)
    steps: list[int] = []
    while True:
        passing = np.flatnonzero(binom.cdf(len(steps), counts, error) <= level)
        if not len(passing):
            return tuple(steps)
        steps.append(int(counts[passing[0]]))


def p_value(wrong: int, accepted: int, error: float) -> float:
    """Return the probability of at most `wrong` of `accepted`, if `error` of them are wrong."""
    from scipy.stats import binom

    return float(binom.cdf(wrong, accepted, error))


def accept_from(
    scores: Sequence[float] | Numbers, right: Sequence[bool] | Flags, error: float, level: float
) -> Tested:
    """Return the loosest score that keeps the promise, of documents with a score in [0, 1] each.

    Documents of equal scores are accepted together.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked = np.asarray(scores, np.float64)[order]
    wrong = np.cumsum(~np.asarray(right, bool)[order])
    steps = allowed_steps(error, level, len(ranked))
    if not steps:
        return Tested(None, 0, 0)
    sequence = [*steps[_likeliest_start(1.0 - ranked, steps) :], len(ranked)]
    passed: Tested | None = None
    for count in sequence:
        at = float(ranked[count - 1])
        accepted = int(np.searchsorted(-ranked, -at, side="right"))
        tested = Tested(at, accepted, int(wrong[accepted - 1]))
        if p_value(tested.wrong, accepted, error) > level:
            return passed or Tested(None, tested.accepted, tested.wrong)
        passed = tested
    assert passed is not None
    return passed


def _likeliest_start(wrong: Numbers, steps: Sequence[int]) -> int:
    """Return the step that passes with the highest probability; of equal ones the strictest.

    `wrong` are the documents' chances to be wrong, the surest first; how many are wrong follows
    the Poisson binomial distribution.
    """
    chances = np.zeros(len(steps))
    counts, done = np.ones(1), 0
    for allowed, step in enumerate(steps):
        for chance in wrong[done:step]:
            counts = np.convolve(counts, (1.0 - chance, chance))[: len(steps)]
        done = step
        chances[allowed] = counts[: allowed + 1].sum()
    return int(np.argmax(np.round(chances, 9)))
