"""A traces file graded into another, resumable at any
point, with the table that the report is made from.

    OUT             every row with its grade
    OUT.part.table  the table, while OUT is not whole

Left out: choosing rows (`keep`) and reporting on them (`report`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

from offapi.errors import DataError, GateFailed
from offapi.files.append import append_or_refuse
from offapi.files.staged import Stage
from offapi.grading import table
from offapi.grading.file import pool
from offapi.grading.file.inputs import GradingInputs
from offapi.grading.file.worker import GradedJob, GradingJob
from offapi.grading.table import Table
from offapi.progress import Progress

JOB = 256 * 1024  # bytes of the traces file that a process gets at a time
MOST_FAILED = (
    100  # rows that checks may fail to judge; with more the checks are at fault, and grading stops
)
START: Mapping[str, Any] = {"end": 0, "rows": 0, "crc": 0, "failed": 0, "first": ""}


@dataclass(frozen=True)
class Graded:
    """A graded file and its table.

    `failed`: rows that no check could judge, and the first of them with its check.
    """

    out: Path
    table: Table
    failed: int
    first: str

    def gate(self) -> None:
        """GateFailed when a check failed to judge a row."""
        if self.failed:
            several = "a row" if self.failed == 1 else f"{self.failed} rows"
            raise GateFailed(
                f"{several} could not be graded and will not be kept; the first: {self.first}",
                where=str(self.out),
                next_step="Mend the check: an answer it cannot judge should score 0 with a reason.",
            )


def grade(inputs: GradingInputs, out: Path, said: Progress, grace: float = pool.GRACE) -> Graded:
    """Grade every row into `out`, or go on with an unfinished `out` made of the same inputs.

    DataError for a row that is no trace or has another's id; GateFailed when more than
    `MOST_FAILED` rows could not be judged. What was graded before stays, and is gone on with.
    `grace`: seconds that a check may take beyond the task's limit, before its process is ended.
    """
    side, size = (
        out.with_name(f"{out.name}.part.table"),
        table.kind(len(inputs.task.checks)).itemsize,
    )
    _forget_damaged(out, side, size)
    stage = Stage(out, inputs.key, START)
    try:
        with stage, _Side(side, stage.state["rows"] * size) as aside:
            if stage.resumed:
                said.say(f"Going on after {stage.state['rows']:,} rows graded before.")
            _grade_on(stage, aside, inputs, said, grace)
            found: Table = np.fromfile(side, table.kind(len(inputs.task.checks)))
            _unique_ids(found, inputs.traces)
            stage.finish()
    finally:
        if not stage.part.exists():
            side.unlink(missing_ok=True)
    return Graded(out, found, stage.state["failed"], stage.state["first"])


def _grade_on(
    stage: Stage, aside: _Side, inputs: GradingInputs, said: Progress, grace: float
) -> None:
    seconds = inputs.task.check_seconds + grace if inputs.task.check_seconds else None
    with said.progress("grading", inputs.lines) as advance:
        _few_failed(stage)
        jobs = _jobs(inputs.traces, stage.state["end"])
        for done in pool.grade(jobs, inputs.settings, seconds):
            aside.append(done.table)
            stage.append(done.lines, _state(stage.state, done))
            _few_failed(stage)
            whole = done.end == inputs.settings.traces.stat().st_size
            advance(inputs.lines if whole else stage.state["rows"])


def _state(before: Mapping[str, Any], done: GradedJob) -> dict[str, Any]:
    first = before["first"] or next((f"row {id!r}: {why}" for id, why in done.failed), "")
    return {
        "end": done.end,
        "rows": before["rows"] + done.count,
        "crc": zlib.crc32(done.table, before["crc"]),
        "failed": before["failed"] + len(done.failed),
        "first": first,
    }


def _few_failed(stage: Stage) -> None:
    if stage.state["failed"] > MOST_FAILED:
        raise GateFailed(
            f"more than {MOST_FAILED} rows could not be graded, so it was stopped; the first:"
            f" {stage.state['first']}",
            where=str(stage.part),
            next_step="Mend the check and run the same command again.",
        )


def _jobs(traces: Path, start: int) -> Iterator[GradingJob]:
    """The file from `start` on in pieces of whole lines."""
    with traces.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while start < end:
            file.seek(min(start + JOB, end))
            file.readline()
            yield GradingJob(start, file.tell())
            start = file.tell()


class _Side:
    """The table's file, cut to the rows that count."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)

    def append(self, data: bytes) -> None:
        """Add rows; they count once the journal of the graded file says so."""
        append_or_refuse(self._file, data, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        os.close(self._file)


def _forget_damaged(out: Path, side: Path, size: int) -> None:
    """Begin anew where the table does not hold what the journal counts, as after a power cut."""
    journal = out.with_name(f"{out.name}.part.json")
    try:
        state = orjson.loads(journal.read_bytes())["state"]
        with side.open("rb") as file:
            whole = zlib.crc32(file.read(state["rows"] * size)) == state["crc"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        journal.unlink(missing_ok=True)


def _unique_ids(found: Table, traces: Path) -> None:
    """DataError when two rows have the same id."""
    order = np.argsort(found["id"], kind="stable")
    again = np.flatnonzero(np.diff(found["id"][order]) == 0)
    if len(again):
        second = int(order[again + 1].min())
        first = int(np.flatnonzero(found["id"] == found["id"][second])[0])
        (line, _), (number, row) = (_numbered(traces, i) for i in (first, second))
        id = orjson.loads(row.removeprefix(b"\xef\xbb\xbf"))["id"]
        step = "Give every row an id of its own."
        raise DataError.at(
            f"id {id!r} was already used in line {line}.",
            path=traces,
            line=number,
            field="id",
            next_step=step,
        )


def _numbered(traces: Path, row: int) -> tuple[int, bytes]:
    """The line number and the line of a row, blank lines not counted as rows."""
    with traces.open("rb") as file:
        found = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        return next(pair for i, pair in enumerate(found) if i == row)
