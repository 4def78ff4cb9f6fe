"""The reference window as counts: what fresh rows are held against.

What needs a measure of its own, lengths and novelty, is measured by the one half of the reference
(its rulers and known runs) and compared with the other, so that fresh rows and the rows they are
compared with are measured alike. Which half a row is in depends on its id alone.
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
    """The reference's rows, counted.

    `counts` (W, STEPS + 1) of the values that fresh rows are compared with.
    """

    rows: int
    counts: NDArray[np.int64]
    rulers: Mapping[str, Ruler]
    known: Known
    ids: Ids
    right: tuple[int, int]  # rows right in all fields, of those with gold
    tally: RowTally

    def measured(
        self, batch: Batch, watching: Sequence[Signal]
    ) -> tuple[Numbers, NDArray[np.int64]]:
        """A batch's values with its novelty, and as steps of [0, 1], both (N, W)."""
        raw = batch.values.copy()
        raw[:, _column(watching, NOVEL)] = batch.texts.share(self.known.novel(batch.texts))
        return raw, _steps(raw, watching, self.rulers)


def read_reference(source: TraceSource, said: Progress) -> Reference:
    """Grade and count the file of `source`. DataError where it has no row."""
    tally, ids = RowTally(), Ids()
    first = _First(source.watching)
    with said.progress("reading the reference") as advance:
        for batch in source.batches(ids, tally):
            first.add(batch)
            advance(first.rows)
    if not first.rows:
        raise DataError.at(
            "there are no rows in it.",
            path=source.path,
            next_step="Give it rows served when all was well.",
        )
    counts, rulers = first.counted()
    counts[_column(source.watching, NOVEL)] = _novelty(source, first.known, said)
    return Reference(first.rows, counts, rulers, first.known, ids, (first.right, first.gold), tally)


class _First:
    """The first pass: everything but the novelty of the half
    that is compared with, which needs all of the other.
    """

    def __init__(self, watching: Sequence[Signal]) -> None:
        self._watching, self.known = watching, Known()
        self.rows = self.right = self.gold = 0
        self._counts = np.zeros((len(watching), STEPS + 1), np.int64)
        self._marks = {name: np.zeros((2, MARKS), np.int64) for name in LENGTHS}

    def add(self, batch: Batch) -> None:
        half = _compared([trace.id for trace in batch.traces])
        self.known.add(batch.texts, ~half)
        for i, one in enumerate(self._watching):
            if one.name in LENGTHS:
                for side in (0, 1):
                    found = marks(batch.values[half == side, i])
                    self._marks[one.name][side] += np.bincount(found, minlength=MARKS)
            elif one.name not in HALVED:
                self._counts[i] += np.bincount(_rounded(batch.values[:, i]), minlength=STEPS + 1)
        self.rows += len(batch.traces)
        self.right += int((batch.right == table.RIGHT).sum())
        self.gold += int((batch.right != table.UNKNOWN).sum())

    def counted(self) -> tuple[NDArray[np.int64], dict[str, Ruler]]:
        """The counts, and the rulers of the one half, by which the other's lengths are counted."""
        rulers = {name: Ruler(sides[0]) for name, sides in self._marks.items()}
        for name, ruler in rulers.items():
            weights = self._marks[name][1]
            places = _rounded(ruler.places())
            self._counts[_column(self._watching, name)] = np.bincount(
                places, weights, STEPS + 1
            ).astype(np.int64)
        return self._counts, rulers


def _novelty(source: TraceSource, known: Known, said: Progress) -> NDArray[np.int64]:
    """Counts of the novelty of the half that is
    compared with; the file is read again, not graded.
    """
    counts, done = np.zeros(STEPS + 1, np.int64), 0
    with said.progress("comparing its halves") as advance, source.path.open("rb") as file:
        for job in source.jobs(Ids(), RowTally()):
            file.seek(job.start)
            lines = [line for line in file.read(job.end - job.start).split(b"\n") if line.strip()]
            traces = [rows.parse(line, source.path, 0, source.task) for line in lines]
            half = _compared([trace.id for trace in traces])
            some = [
                trace.document for trace, compared in zip(traces, half, strict=True) if compared
            ]
            texts = Texts.of(some)
            counts += np.bincount(_rounded(texts.share(known.novel(texts))), minlength=STEPS + 1)
            done += len(traces)
            advance(done)
    return counts


def _steps(
    raw: Numbers, watching: Sequence[Signal], rulers: Mapping[str, Ruler]
) -> NDArray[np.int64]:
    found = np.empty(raw.shape, np.int64)
    for i, one in enumerate(watching):
        places = rulers[one.name].places()[marks(raw[:, i])] if one.name in rulers else raw[:, i]
        found[:, i] = _rounded(places)
    return found


def _rounded(values: Numbers) -> NDArray[np.int64]:
    return np.rint(values * STEPS).astype(np.int64)


def _compared(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each row is in the half that fresh rows are compared with."""
    return np.asarray((table.digests(ids) >> np.uint64(17)) & np.uint64(1) == 1)


def _column(watching: Sequence[Signal], name: str) -> int:
    return next(i for i, one in enumerate(watching) if one.name == name)
