"""What a grading process does: lines of the traces file in, graded lines and table rows out.

Before each check it notes the row and the check, so that a check that never returns can be named.
Left out: when a check has taken too long, see `pool`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError
from offapi.grading import rows, table
from offapi.grading.similarity.contamination import Evaluation
from offapi.grading.similarity.shingles import Hashes
from offapi.task import Grade, Task, load_task
from offapi.workers.ordered_pool import collect_garbage_rarely
from offapi.workers.supervised import CallNote

PIECE = 1 << 20  # bytes read at a time to count lines


@dataclass(frozen=True)
class GradingSettings:
    """What every grading process needs."""

    task_file: Path
    task_sha256: str
    traces: Path
    cap_by: str | None
    gold: Path | None
    evaluation: Sequence[str]  # documents that rows may not be near
    common: Hashes  # runs of words that do not count


@dataclass(frozen=True)
class GradingJob:
    """A stretch of the traces file, in bytes.

    `broken` holds its rows that must not be tried again, each with the reason.
    """

    start: int
    end: int
    broken: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GradedJob:
    """A job's graded lines and its rows of the table as bytes.

    `failed` holds the id and the reason of each row that a check failed on.
    """

    end: int
    lines: bytes
    table: bytes
    count: int
    failed: tuple[tuple[str, str], ...]


def grading(settings: GradingSettings, note: CallNote) -> Callable[[GradingJob], GradedJob]:
    """Return the function that answers a grading process's jobs."""
    collect_garbage_rarely()
    return Grader(settings, note).grade


class Grader:
    """A task with all that is needed to grade lines."""

    def __init__(self, settings: GradingSettings, note: CallNote) -> None:
        self._settings, self._note = settings, note
        self._task = _watched(load_task(settings.task_file), note)
        self._first = _called(next(iter(self._task.checks)))
        self._gold = rows.Gold.read(settings.gold, self._task) if settings.gold else None
        self._evaluation = (
            Evaluation(settings.evaluation, settings.common) if settings.evaluation else None
        )

    def grade(self, job: GradingJob) -> GradedJob:
        """Grade all rows of `job`; raise DataError with file and line for an invalid row."""
        graded: list[_Row] = []
        at = job.start
        for number, line in enumerate(self._read(job.start, job.end).split(b"\n"), start=1):
            if line.strip():
                graded.append(self._row(line, number, at, job))
            at += len(line) + 1
        self._note.clear()
        lines = [row.line for row in graded]
        right = [row.right for row in graded]
        columns = table.of(
            [(row.trace, row.grade) for row in graded],
            len(self._task.checks),
            self._settings.cap_by,
            right,
            fields=tuple(self._task.match),
        )
        columns["length"] = [len(line) for line in lines]
        columns["has_answer"] &= np.array([row.error != rows.NO_ANSWER for row in graded], bool)
        documents = [row.trace.document for row in graded]
        table.add_documents(columns, documents, self._settings.common, self._evaluation)
        failed = tuple(
            (row.trace.id, row.error) for row in graded if row.error and row.error != rows.NO_ANSWER
        )
        return GradedJob(job.end, b"".join(lines), columns.tobytes(), len(graded), failed)

    def _row(self, line: bytes, number: int, at: int, job: GradingJob) -> _Row:
        try:
            trace = rows.parse(line, self._settings.traces, number, self._task)
            grade, error = self._graded(trace, at, job)
            right = rows.judge(self._task, trace, grade, self._gold)
        except DataError:
            raise self._located(line, number, job) from None
        stored = (
            {"error": error} if grade is None else rows.as_dict(grade, self._settings.task_sha256)
        )
        return _Row(trace, grade, error, right, rows.graded(line, stored))

    def _graded(self, trace: Trace, at: int, job: GradingJob) -> tuple[Grade | None, str]:
        """Return the grade, or None and the reason."""
        if not trace.answered:
            return None, rows.NO_ANSWER
        if at in job.broken:
            return None, f"task {self._task.name!r}, row {trace.id!r}: {job.broken[at]}"
        self._note.begin(at, self._first)
        try:
            return self._task.grade_trace(trace), ""
        except ConfigError as error:
            return None, f"{error.where}: {error.what}"

    def _located(self, line: bytes, number: int, job: GradingJob) -> DataError:
        """Return the error in `line` with its number in the file, counted only now."""
        number += sum(
            self._read(at, min(at + PIECE, job.start)).count(b"\n")
            for at in range(0, job.start, PIECE)
        )
        path = self._settings.traces
        try:
            rows.judge(
                self._task,
                rows.parse(line, path, number, self._task),
                Grade(0.0, {}, None),
                self._gold,
            )
        except DataError as error:
            where = (
                error.where
                if error.where.startswith(str(path))
                else f"{path}, line {number}, {error.where}"
            )
            return DataError(error.what, where=where, next_step=error.next_step)
        raise AssertionError("a line that was refused is not refused again")

    def _read(self, start: int, end: int) -> bytes:
        with self._settings.traces.open("rb") as file:
            file.seek(start)
            return file.read(end - start)


class _Row(NamedTuple):
    """A line read and graded; `error` says why it has no grade."""

    trace: Trace
    grade: Grade | None
    error: str
    right: int
    line: bytes


def _watched(task: Task, note: CallNote) -> Task:
    """Return `task` with checks that note themselves before they run."""

    def watch(check: Check, call: str) -> Check:
        @functools.wraps(check)
        def watched(document: str, answer: Answer, context: Context) -> Verdict:
            note.call(call)
            return check(document, answer, context)

        return watched

    checks = {
        name: (watch(check, _called(name)), weight) for name, (check, weight) in task.checks.items()
    }
    return replace(task, checks=checks)


def _called(check: str) -> str:
    return f"check {check!r}"
