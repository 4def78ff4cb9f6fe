"""Test whether a mean in [0, 1] has fallen below the reference's, by e-processes.

They may be checked after every row. A gambler bets on each fresh value x at odds that are fair if
the mean is q: wealth is multiplied by 1 + b (q - x), with b set before x is seen, and is a
nonnegative supermartingale while the mean is q or more (the capital process of Waudby-Smith and
Ramdas, arXiv 2010.09686, betting as their aGRAPA does). By Ville's inequality it ever reaches 1/a
with probability at most a. The reference's own mean m is unknown too: a second gambler bets on the
reference that its mean is above m. What counts is the product of both, minimized over all m. Left
out: rows that depend on one another, and rises, which are falls of 1 - x.

Shapes: S series, J gamblers, K points for m, V values, B rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 200  # values are rounded to 1 / STEPS, in the reference and in fresh rows
BLOCK = 25  # rows between bets
MEMORY = np.array([200.0, 2000.0])  # (J,): rows after which an observation counts half
PRIOR = 25.0  # rows of the reference that a gambler starts with
MOST = 0.95  # share of its wealth that a gambler may lose at once
EDGE = 1e-9
_KEPT = 0.5 ** (BLOCK / MEMORY)
# in standard errors of the reference's mean; a bet of 0 keeps its stake
_REFERENCE_BETS = np.array([0.0, 1.5, 3.0, 6.0, 12.0])

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
VALUES = np.arange(STEPS + 1) / STEPS  # (V,)


@dataclass(frozen=True)
class Test:
    """The hypotheses for S series: cells of m, each with a mean q and the reference's evidence."""

    q: Numbers  # (S, K): the reference's mean at a cell's lower end, minus the margin
    # (S, K): log wealth of the bet that the reference's mean is above the cell's upper end
    evidence: Numbers
    mean: Numbers  # (S,): of the reference
    square: Numbers  # (S,): its mean square
    floor: Numbers  # (S,): lower bound of the variances


@dataclass(frozen=True)
class Bets:
    """The gamblers' standing after whole blocks of rows."""

    wealth: Numbers  # (S, J, K): logs
    rows: Numbers  # (J,): the rows remembered, older ones with less weight
    sums: Numbers  # (S, J): of their values
    squares: Numbers  # (S, J)

    @classmethod
    def start(cls, test: Test) -> Bets:
        """Return the bets before any row."""
        series, gamblers = len(test.mean), len(MEMORY)
        none = np.zeros((series, gamblers))
        return cls(np.zeros((series, gamblers, test.q.shape[1])), np.zeros(gamblers), none, none)


def against(reference: Counts, margin: float) -> Test:
    """Return a test for each series of (S, V) counts.

    Its hypothesis: the fresh mean is at least the reference's minus `margin`.
    """
    n = reference.sum(axis=1)
    shared = reference / np.maximum(n, 1)[:, None]
    mean, square = shared @ VALUES, shared @ VALUES**2
    floor = 1.0 / np.maximum(n, 1)
    grid = _grid(mean, np.sqrt(np.maximum(square - mean**2, floor) * floor))
    evidence = np.array(
        [log_above(one, at) for one, at in zip(reference, grid[:, 1:], strict=True)]
    )
    return Test(np.clip(grid[:, :-1] - margin, 0.0, 1.0 - EDGE), evidence, mean, square, floor)


def against_mean(least: Numbers) -> Test:
    """Return a test for each series that has a stated mean and no reference.

    Its hypothesis: the mean of values that are 0 or 1 is `least`, (S,), or more.
    """
    none = np.zeros((len(least), 1))
    return Test(least[:, None], none, least, least, least * (1.0 - least))


def log_above(counts: Counts, at: Numbers) -> Numbers:
    """Return the logs of e-values against `the mean is at[k] or less`, (K,), from (V,) counts.

    `at` must be above 0. Bets are in standard deviations of a coin with that mean, so that the
    wealth falls as `at` rises.
    """
    used = np.flatnonzero(counts)
    size = (
        np.sqrt(at / np.maximum(1.0 - at, EDGE))
        * _REFERENCE_BETS[:, None]
        / np.sqrt(max(counts.sum(), 1))
    )
    gain = np.minimum(size, MOST) * (VALUES[used][:, None, None] / at - 1.0)
    return _log_mean((counts[used][:, None, None] * np.log1p(gain)).sum(axis=0))


def after(test: Test, bets: Bets, values: Numbers) -> Bets:
    """Return the bets after one more whole block of rows, (BLOCK, S)."""
    return Bets(
        _wealth(test, bets, values),
        _KEPT * bets.rows + len(values),
        _KEPT * bets.sums + values.sum(axis=0)[:, None],
        _KEPT * bets.squares + (values**2).sum(axis=0)[:, None],
    )


def log_e(test: Test, bets: Bets, values: Numbers) -> Numbers:
    """Return the logs of the e-values, (S,), after `bets` and the rows of a partial block, (B, S).

    Within a cell of m, no wealth is below that at the end used here; so the minimum over the
    cells is the minimum over all m.
    """
    wealth = _log_mean(_wealth(test, bets, values).swapaxes(0, 1))
    return np.asarray((wealth + test.evidence).min(axis=1))


def _wealth(test: Test, bets: Bets, values: Numbers) -> Numbers:
    q = test.q[:, None, :]
    bet = _bet(test, bets)
    gain = np.ones_like(bet)
    for row in values:
        gain *= 1.0 + bet * (q - row[:, None, None])
    return bets.wealth + np.log(gain)


def _bet(test: Test, bets: Bets) -> Numbers:
    """Return aGRAPA's bet, gap / (variance + gap²), (S, J, K); 0 if the rows so far are above q."""
    rows = bets.rows + PRIOR
    mean = (bets.sums + PRIOR * test.mean[:, None]) / rows
    square = (bets.squares + PRIOR * test.square[:, None]) / rows
    variance = np.maximum(square - mean**2, test.floor[:, None])[..., None]
    gap = np.maximum(test.q[:, None, :] - mean[..., None], 0.0)
    return np.asarray(np.minimum(gap / (variance + gap**2), MOST / (1.0 - test.q[:, None, :])))


def _grid(mean: Numbers, error: Numbers) -> Numbers:
    """Return the ends of cells from 0 to 1, (S, K + 1).

    Cells are small where the reference's mean may lie, which loses the least power.
    """
    near = np.clip(mean[:, None] + error[:, None] * np.arange(-64, 17) / 8, 0.0, 1.0)
    coarse = np.broadcast_to(np.linspace(0.0, 1.0, 41), (len(mean), 41))
    ends = np.sort(np.concatenate([coarse, near], axis=1), axis=1)
    ends[:, 1:] = np.maximum(ends[:, 1:], EDGE)
    return ends


def _log_mean(logs: Numbers) -> Numbers:
    """Return the log of the mean over the first axis."""
    most = logs.max(axis=0)
    return np.asarray(np.log(np.exp(logs - most).mean(axis=0)) + most)
