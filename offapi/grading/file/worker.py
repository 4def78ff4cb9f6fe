"""What one of the grading processes does: lines of
the traces file in, graded lines and table rows out.

Before each check it notes, in memory it shares with the command, which row and check is under
way, so that a check that never returns is known by name. Left out: deciding that, see `pool`.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError, OffapiError
from offapi.grading import rows, table
from offapi.grading.similarity.contamination import Evaluation
from offapi.grading.similarity.shingles import Hashes
from offapi.network.helper_log import Journal
from offapi.task import Grade, Task, load_task
from offapi.workers import time_limit

IDLE = -1
PIECE = 1 << 20  # bytes read at a time to count lines


@dataclass(frozen=True)
class Settings:
    """What every process needs to know."""

    task_file: Path
    task_sha256: str
    traces: Path
    cap_by: str | None
    gold: Path | None
    evaluation: Sequence[str]  # documents that rows may not be near to
    common: Hashes  # runs of words that do not count


@dataclass(frozen=True)
class Job:
    """A stretch of the traces file, by bytes, and the rows
    in it that are not to be tried again, each with why.
    """

    start: int
    end: int
    broken: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A job's graded lines, its rows of the table as bytes,
    and the rows that a check failed to judge: id and why.
    """

    end: int
    lines: bytes
    table: bytes
    count: int
    failed: tuple[tuple[str, str], ...]


def serve(pipe: Connection, marker: Any, settings: Settings, journal: Journal) -> None:
    """Answer jobs until the pipe ends.

    An error in the data or the task is the answer to its job.
    """
    journal.keep()
    os.dup2(2, 1)  # what a check prints must not mix with the command's one object on stdout
    # rows make no cycles: looking for them at Python's usual pace costs a tenth of the time
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    grader: Grader | None = None
    try:
        while True:
            job: Job = pipe.recv()
            try:
                grader = grader or Grader(settings, marker)
                with time_limit.lasting():
                    done = grader.grade(job)
                pipe.send(done)
            except OffapiError as error:
                pipe.send(error)
            finally:
                marker[0] = IDLE
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class Grader:
    """A task with all that is needed to grade lines."""

    def __init__(self, settings: Settings, marker: Any) -> None:
        self._settings, self._marker = settings, marker
        self._task = _watched(load_task(settings.task_file), marker)
        self._gold = rows.Gold.read(settings.gold, self._task) if settings.gold else None
        self._evaluation = (
            Evaluation(settings.evaluation, settings.common) if settings.evaluation else None
        )

    def grade(self, job: Job) -> Done:
        """All rows of `job`. DataError, with file and line, at a row that is no trace."""
        found: list[_Row] = []
        at = job.start
        for number, line in enumerate(self._read(job.start, job.end).split(b"\n"), start=1):
            if line.strip():
                found.append(self._row(line, number, at, job))
            at += len(line) + 1
        self._marker[0] = IDLE
        lines = [row.line for row in found]
        columns = table.of(
            [(row.trace, row.grade) for row in found],
            len(self._task.checks),
            self._settings.cap_by,
            [row.right for row in found],
        )
        columns["length"] = [len(line) for line in lines]
        columns["has_answer"] &= np.array([row.error != rows.NO_ANSWER for row in found], bool)
        documents = [row.trace.document for row in found]
        table.add_documents(columns, documents, self._settings.common, self._evaluation)
        failed = tuple(
            (row.trace.id, row.error) for row in found if row.error and row.error != rows.NO_ANSWER
        )
        return Done(job.end, b"".join(lines), columns.tobytes(), len(found), failed)

    def _row(self, line: bytes, number: int, at: int, job: Job) -> _Row:
        try:
            trace = rows.parse(line, self._settings.traces, number, self._task)
            grade, error = self._graded(trace, at, job)
            right = rows.judge(self._task, trace, grade, self._gold)
        except DataError:
            raise self._located(line, number, job) from None
        shown = (
            {"error": error} if grade is None else rows.as_dict(grade, self._settings.task_sha256)
        )
        return _Row(trace, grade, error, right, rows.graded(line, shown))

    def _graded(self, trace: Trace, at: int, job: Job) -> tuple[Grade | None, str]:
        """The grade, or why there is none."""
        if not trace.answered:
            return None, rows.NO_ANSWER
        if at in job.broken:
            return None, f"task {self._task.name!r}, row {trace.id!r}: {job.broken[at]}"
        self._marker[0] = at
        try:
            return self._task.grade_trace(trace), ""
        except ConfigError as error:
            return None, f"{error.where}: {error.what}"

    def _located(self, line: bytes, number: int, job: Job) -> DataError:
        """The error in `line`, with its number in the file, which is asked for only now."""
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
    """A line read and graded. `error`: why it has no grade."""

    trace: Trace
    grade: Grade | None
    error: str
    right: int
    line: bytes


def _watched(task: Task, marker: Any) -> Task:
    """`task`, each check of which is noted before it runs."""

    def watch(check: Check, i: int) -> Check:
        @functools.wraps(check)
        def watched(document: str, answer: Answer, context: Context) -> Verdict:
            marker[1] = i
            return check(document, answer, context)

        return watched

    checks = {
        name: (watch(check, i), weight)
        for i, (name, (check, weight)) in enumerate(task.checks.items())
    }
    return replace(task, checks=checks)
