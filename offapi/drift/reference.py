"""The reference window as counts, with which fresh rows are compared.

Lengths and novelty need a scale. One half of the reference makes it (its rulers and known runs),
and fresh rows are compared with the other half, so that both are measured alike. The half of a row
depends only on its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.drift.quantile_scale import MARKS, Ruler, marks
from offapi.drift.rows import Batch, RowTally, TraceSource
from offapi.drift.sequential_test import STEPS
from offapi.drift.signals import HALVED, LENGTHS, NOVEL, Signal
from offapi.errors import DataError
from offapi.grading import rows, table
from offapi.grading.similarity.character_runs import Known, Texts
from offapi.grading.similarity.hash_set import Ids
from offapi.progress import Progress

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """The reference's rows, counted."""

    rows: int
    counts: NDArray[np.int64]  # (W, STEPS + 1): of the values that fresh rows are compared with
    rulers: Mapping[str, Ruler]
    known: Known
    ids: Ids
    right: tuple[int, int]  # rows right in all fields, of those with gold
    tally: RowTally

    def measured(
        self, batch: Batch, watching: Sequence[Signal]
    ) -> tuple[Numbers, NDArray[np.int64]]:
        """Return a batch's values, with its novelty, and the values as steps, both (N, W)."""
        raw = batch.values.copy()
        raw[:, _column(watching, NOVEL)] = batch.texts.share(self.known.novel(batch.texts))
        return raw, _steps(raw, watching, self.rulers)


def read_reference(source: TraceSource, progress: Progress) -> Reference:
    """Grade and count the file of `source`. Raise DataError if it has no rows."""
    tally, ids = RowTally(), Ids()
    first = _First(source.watching)
    with progress.progress("reading the reference") as advance:
        for batch in source.batches(ids, tally):
            first.add(batch)
            advance(first.rows)
    if not first.rows:
        raise DataError.at(
            "the file has no rows.",
            path=source.path,
            next_step="Put in rows that were served while all was well.",
        )
    counts, rulers = first.counted()
    counts[_column(source.watching, NOVEL)] = _novelty(source, first.known, progress)
    return Reference(first.rows, counts, rulers, first.known, ids, (first.right, first.gold), tally)


class _First:
    """The first pass: everything except the compared half's novelty, which needs the other half."""

    def __init__(self, watching: Sequence[Signal]) -> None:
        self._watching, self.known = watching, Known()
        self.rows = self.right = self.gold = 0
        self._counts = np.zeros((len(watching), STEPS + 1), np.int64)
        self._marks = {name: np.zeros((2, MARKS), np.int64) for name in LENGTHS}

    def add(self, batch: Batch) -> None:
        half = _compared([trace.id for trace in batch.traces])
        self.known.add(batch.texts, ~half)
        for i, signal in enumerate(self._watching):
            if signal.name in LENGTHS:
                for side in (0, 1):
                    lengths = marks(batch.values[half == side, i])
                    self._marks[signal.name][side] += np.bincount(lengths, minlength=MARKS)
            elif signal.name not in HALVED:
                self._counts[i] += np.bincount(_rounded(batch.values[:, i]), minlength=STEPS + 1)
        self.rows += len(batch.traces)
        self.right += int((batch.right == table.RIGHT).sum())
        self.gold += int((batch.right != table.UNKNOWN).sum())

    def counted(self) -> tuple[NDArray[np.int64], dict[str, Ruler]]:
        """Return the counts, and the rulers of one half that measure the other's lengths."""
        rulers = {name: Ruler(sides[0]) for name, sides in self._marks.items()}
        for name, ruler in rulers.items():
            weights = self._marks[name][1]
            places = _rounded(ruler.places())
            self._counts[_column(self._watching, name)] = np.bincount(
                places, weights, STEPS + 1
            ).astype(np.int64)
        return self._counts, rulers


def _novelty(source: TraceSource, known: Known, progress: Progress) -> NDArray[np.int64]:
    """Count the novelty of the compared half. The file is read again, but not graded."""
    counts, done = np.zeros(STEPS + 1, np.int64), 0
    with progress.progress("comparing its halves") as advance, source.path.open("rb") as file:
        for job in source.jobs(Ids(), RowTally()):
            file.seek(job.start)
            lines = [line for line in file.read(job.end - job.start).split(b"\n") if line.strip()]
            traces = [rows.parse(line, source.path, 0, source.task) for line in lines]
            half = _compared([trace.id for trace in traces])
            documents = [
                trace.document for trace, compared in zip(traces, half, strict=True) if compared
            ]
            texts = Texts.of(documents)
            counts += np.bincount(_rounded(texts.share(known.novel(texts))), minlength=STEPS + 1)
            done += len(traces)
            advance(done)
    return counts


def _steps(
    raw: Numbers, watching: Sequence[Signal], rulers: Mapping[str, Ruler]
) -> NDArray[np.int64]:
    steps = np.empty(raw.shape, np.int64)
    for i, signal in enumerate(watching):
        values = raw[:, i]
        if signal.name in rulers:
            values = rulers[signal.name].places()[marks(values)]
        steps[:, i] = _rounded(values)
    return steps


def _rounded(values: Numbers) -> NDArray[np.int64]:
    return np.rint(values * STEPS).astype(np.int64)


def _compared(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether each row is in the half that fresh rows are compared with."""
    return np.asarray((table.digests(ids) >> np.uint64(17)) & np.uint64(1) == 1)


def _column(watching: Sequence[Signal], name: str) -> int:
    return next(i for i, signal in enumerate(watching) if signal.name == name)
