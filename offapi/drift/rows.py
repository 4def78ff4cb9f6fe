"""Read a traces file once, grade it without gold, and return batches of rows as numbers.

Rows whose id or group was already counted are skipped before they are graded. Left out: what the
numbers mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from offapi.data.traces import Trace
from offapi.drift import without_gold
from offapi.drift.signals import Signal, signal_values
from offapi.errors import ConfigError, DataError
from offapi.files import jsonl
from offapi.files.hashing import hash64
from offapi.grading import rows, table
from offapi.grading.file import pool
from offapi.grading.file.worker import GradedJob, GradingJob, GradingSettings
from offapi.grading.similarity.character_runs import Texts
from offapi.grading.similarity.hash_set import Ids
from offapi.grading.similarity.shingles import NOTHING
from offapi.task import Task

JOB = 256 * 1024  # bytes of the file that a process gets at a time
MOST_FAILED = 100  # rows that checks may fail to grade; with more, the checks are at fault
BLANK, REPEATED, GROUPED, REFERENCE = (
    "blank",
    "counted before",
    "of a group counted before",
    "in the reference",
)


@dataclass(frozen=True)
class Batch:
    """N graded rows that were not counted before."""

    traces: Sequence[Trace]
    texts: Texts  # their documents
    values: NDArray[np.float64]  # (N, W)
    right: NDArray[np.int8]  # whether all fields equal gold, or table.UNKNOWN


@dataclass
class RowTally:
    """How many rows were skipped, by reason, and how many a check failed to grade."""

    passed_over: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    first: str = ""  # the first row that failed, and why


@dataclass(frozen=True)
class TraceSource:
    """A file and the task that grades it. Rows in `reference` do not count."""

    path: Path
    task_file: Path
    task: Task  # without gold
    watching: Sequence[Signal]
    reference: Ids = field(default_factory=Ids)

    def batches(self, ids: Ids, tally: RowTally) -> Iterator[Batch]:
        """Yield all rows that are not in `ids`, and add them there.

        Raise DataError, with line and field, for a row that is not a trace, and ConfigError if
        more than MOST_FAILED rows cannot be graded.
        """
        seconds = self.task.check_seconds + pool.GRACE if self.task.check_seconds else None
        with without_gold.file(self.task_file) as task_file:
            settings = GradingSettings(task_file, "", self.path, None, None, (), NOTHING)
            for done in pool.grade(self.jobs(ids, tally), settings, seconds):
                tally.failed += len(done.failed)
                tally.first = tally.first or next(
                    (f"row {id!r}: {why}" for id, why in done.failed), ""
                )
                if tally.failed > MOST_FAILED:
                    step = (
                        "Fix the check. It sees no gold here; an answer it cannot grade should"
                        " score 0."
                    )
                    what = (
                        f"more than {MOST_FAILED} rows could not be graded; the first:"
                        f" {tally.first}"
                    )
                    raise ConfigError(what, where=str(self.path), next_step=step)
                yield self._batch(done)

    def jobs(self, ids: Ids, tally: RowTally) -> Iterator[GradingJob]:
        """Yield stretches of lines whose rows are not in `ids`, and add them there."""
        start = end = at = 0
        with _opened(self.path) as file:
            for number, line in enumerate(file, start=1):
                reason = self._passed_over(line, number, ids) if line.strip() else BLANK
                if reason:
                    tally.passed_over.update([reason] if reason != BLANK else [])
                    if end > start:
                        yield GradingJob(start, end)
                    start = at + len(line)
                at += len(line)
                end = at
                if end - start >= JOB:
                    yield GradingJob(start, end)
                    start = end
        if end > start:
            yield GradingJob(start, end)

    def _passed_over(self, line: bytes, number: int, ids: Ids) -> str:
        """Return why a row does not count; "" if it does, or is invalid, which grading reports."""
        try:
            row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except orjson.JSONDecodeError:
            return ""
        if not isinstance(row, dict) or type(row.get("id")) not in (str, int):
            return ""
        if "document" in row and "messages" not in row and row.get("recorded_label") is None:
            what = "the document has no answer."
            step = 'Add the served answer as "recorded_label".'
            raise DataError.at(
                what, path=self.path, line=number, field="recorded_label", next_step=step
            )
        id = hash64(str(row["id"]))
        group = hash64(f"group\0{row['group']}") if isinstance(row.get("group"), str) else None
        if id in self.reference or group in self.reference:
            return REFERENCE
        if id in ids or group in ids:
            return REPEATED if id in ids else GROUPED
        ids.add(id)
        if group is not None:
            ids.add(group)
        return ""

    def _batch(self, done: GradedJob) -> Batch:
        right = np.frombuffer(done.table, table.kind(len(self.task.checks)))["right"]
        failed = {id for id, _ in done.failed}
        lines = [
            rows.parse(line, self.path, 0, self.task) for line in done.lines.split(b"\n") if line
        ]
        kept = np.array([trace.id not in failed for trace in lines], bool)
        traces = [trace for trace in lines if trace.id not in failed]
        texts = Texts.of([trace.document for trace in traces])
        return Batch(traces, texts, signal_values(traces, self.watching, texts), right[kept])


def _opened(path: Path) -> Any:
    """Open the file. Raise DataError if it is empty or cannot be read."""
    try:
        file = path.open("rb")
        if not path.stat().st_size:
            file.close()
            raise DataError.at(
                "the file has no rows.", path=path, next_step="Write one JSON object per line."
            )
        if not jsonl.is_lines(path):
            file.close()
            what = "the file is not JSON Lines in UTF-8, which is needed here."
            step = "Write one object a line, for example: jq -c '.[]' FILE (or gunzip it)."
            raise DataError.at(what, path=path, next_step=step)
    except OSError as error:
        raise DataError.at(
            f"the file cannot be read: {error.strerror}.", path=path, next_step="Check the path."
        ) from None
    return file
