"""Compare fresh rows with the reference, one after another, in whatever batches they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log

import numpy as np
from numpy.typing import NDArray

from offapi.drift import outliers, sequential_test
from offapi.drift.reference import Reference
from offapi.drift.rows import Batch, RowTally, TraceSource
from offapi.drift.sequential_test import BLOCK, STEPS, VALUES, Test
from offapi.drift.signals import Signal
from offapi.drift.state import State
from offapi.grading import table
from offapi.progress import Progress

Steps = NDArray[np.int64]


class DriftMonitor:
    """Compares rows with a reference. Changes of a mean within `margin` do not count."""

    def __init__(self, reference: Reference, watching: Sequence[Signal], margin: float) -> None:
        self.reference, self.watching = reference, watching
        self._both = np.array([not signal.falls_only for signal in watching])
        self.test: Test = sequential_test.against(
            np.concatenate([reference.counts, reference.counts[self._both, ::-1]]), margin
        )

    def start(self) -> State:
        """Return the state before any fresh row."""
        return State.start(self.test, len(self.watching))

    def run(self, state: State, source: TraceSource, tally: RowTally, progress: Progress) -> State:
        """Return the state after the rows of `source` that are not yet counted in it."""
        with progress.progress("grading fresh rows") as advance:
            before = state.rows
            for batch in source.batches(state.ids, tally):
                state = self.after(state, batch)
                advance(state.rows - before)
        state = replace(state, failed=state.failed + tally.failed)
        return replace(state, peak=np.maximum(state.peak, self.log_e(state)))

    def after(self, state: State, batch: Batch) -> State:
        """Return the state after a batch."""
        raw, steps = self.reference.measured(batch, self.watching)
        state = self.counted(state, steps)
        tops = outliers.merged(
            state.tops, batch, raw, self.watching, self.reference.rulers, self.reference.known
        )
        right = int((batch.right == table.RIGHT).sum())
        gold = int((batch.right != table.UNKNOWN).sum())
        return replace(state, tops=tops, right=(state.right[0] + right, state.right[1] + gold))

    def counted(self, state: State, steps: Steps) -> State:
        """Return the state after rows whose values are `steps`, (N, W), in units of 1 / STEPS.

        The e-values are computed after each block.
        """
        rows = np.concatenate([state.pending, steps])
        bets, peak, none = state.bets, state.peak, self._series(rows[:0])
        whole = len(rows) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            bets = sequential_test.after(self.test, bets, self._series(rows[at : at + BLOCK]))
            peak = np.maximum(peak, self._joined(sequential_test.log_e(self.test, bets, none)))
        counts = state.counts + np.array(
            [np.bincount(column, minlength=STEPS + 1) for column in steps.T]
        )
        return replace(
            state,
            rows=state.rows + len(steps),
            counts=counts,
            bets=bets,
            pending=rows[whole:],
            peak=peak,
        )

    def log_e(self, state: State) -> NDArray[np.float64]:
        """Return the logs of the current e-values, (W,).

        Where both directions count, it is the mean of a fall's and a rise's.
        """
        return self._joined(
            sequential_test.log_e(self.test, state.bets, self._series(state.pending))
        )

    def lately(self, state: State) -> NDArray[np.float64]:
        """Return the means of about the last few hundred rows, (W,); NaN before the first block."""
        rows, sums = state.bets.rows[0], state.bets.sums[: len(self.watching), 0]
        return sums / rows if rows else np.full(len(self.watching), np.nan)

    def _series(self, steps: Steps) -> NDArray[np.float64]:
        values = VALUES[steps]
        return np.concatenate([values, 1.0 - values[:, self._both]], axis=1)

    def _joined(self, logs: NDArray[np.float64]) -> NDArray[np.float64]:
        joined = logs[: len(self.watching)].copy()
        joined[self._both] = np.logaddexp(joined[self._both], logs[len(self.watching) :]) - log(2)
        return joined
