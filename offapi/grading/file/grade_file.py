"""Grade a traces file into another, resumable at any point, with a table for the report.

    OUT             every row with its grade
    OUT.part.table  the table, while OUT is incomplete

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
from offapi.text.display import plural

JOB = 256 * 1024  # bytes of the traces file that a process gets at a time
MOST_FAILED = 100  # rows that checks may fail on; beyond that grading stops
START: Mapping[str, Any] = {"end": 0, "rows": 0, "crc": 0, "failed": 0, "first": ""}


@dataclass(frozen=True)
class Graded:
    """A graded file and its table.

    `failed` counts the rows that a check failed on; `first` describes the first of them.
    """

    path: Path
    table: Table
    failed: int
    first: str

    def gate(self) -> None:
        """Raise GateFailed if a check failed on a row."""
        if self.failed:
            count = plural(self.failed, "row")
            raise GateFailed(
                f"{count} could not be graded and will not be kept. The first: {self.first}",
                where=str(self.path),
                next_step="Fix the check: an answer it cannot grade should score 0 with a reason.",
            )


def grade(
    inputs: GradingInputs, out_path: Path, progress: Progress, grace: float = pool.GRACE
) -> Graded:
    """Grade every row into `out_path`, or resume an unfinished file made of the same inputs.

    Raises DataError for a row that is not a trace or repeats an id, and GateFailed when checks
    failed on more than `MOST_FAILED` rows; rows graded before are kept for the next call. `grace`
    is the seconds a check may take beyond the task's limit before its process is ended.
    """
    table_path = out_path.with_name(f"{out_path.name}.part.table")
    row_type = table.kind(len(inputs.task.checks))
    _forget_damaged(out_path, table_path, row_type.itemsize)
    stage = Stage(out_path, inputs.key, START)
    try:
        with stage, _TableFile(table_path, stage.state["rows"] * row_type.itemsize) as table_file:
            if stage.resumed:
                progress.say(f"Resuming after {plural(stage.state['rows'], 'graded row')}.")
            _grade_rest(stage, table_file, inputs, progress, grace)
            rows: Table = np.fromfile(table_path, row_type)
            _unique_ids(rows, inputs.traces)
            stage.finish()
    finally:
        if not stage.part.exists():
            table_path.unlink(missing_ok=True)
    return Graded(out_path, rows, stage.state["failed"], stage.state["first"])


def _grade_rest(
    stage: Stage, table_file: _TableFile, inputs: GradingInputs, progress: Progress, grace: float
) -> None:
    seconds = inputs.task.check_seconds + grace if inputs.task.check_seconds else None
    with progress.progress("grading", inputs.lines) as advance:
        _few_failed(stage)
        jobs = _jobs(inputs.traces, stage.state["end"])
        for done in pool.grade(jobs, inputs.settings, seconds):
            table_file.append(done.table)
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
            f"grading stopped: more than {MOST_FAILED} rows could not be graded. The first:"
            f" {stage.state['first']}",
            where=str(stage.part),
            next_step="Fix the check and run the same command again.",
        )


def _jobs(traces: Path, start: int) -> Iterator[GradingJob]:
    """Yield the file from `start` on in pieces of whole lines."""
    with traces.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while start < end:
            file.seek(min(start + JOB, end))
            file.readline()
            yield GradingJob(start, file.tell())
            start = file.tell()


class _TableFile:
    """The table's file, cut to the rows that count."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)

    def append(self, data: bytes) -> None:
        """Append rows; they count once the journal of the graded file says so."""
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


def _forget_damaged(out_path: Path, table_path: Path, size: int) -> None:
    """Start over where the table does not hold what the journal counts, as after a power cut."""
    journal = out_path.with_name(f"{out_path.name}.part.json")
    try:
        state = orjson.loads(journal.read_bytes())["state"]
        with table_path.open("rb") as file:
            whole = zlib.crc32(file.read(state["rows"] * size)) == state["crc"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        journal.unlink(missing_ok=True)


def _unique_ids(rows: Table, traces: Path) -> None:
    """Raise DataError when two rows have the same id."""
    order = np.argsort(rows["id"], kind="stable")
    again = np.flatnonzero(np.diff(rows["id"][order]) == 0)
    if len(again):
        second = int(order[again + 1].min())
        first = int(np.flatnonzero(rows["id"] == rows["id"][second])[0])
        (line, _), (number, row) = (_numbered(traces, i) for i in (first, second))
        id = orjson.loads(row.removeprefix(b"\xef\xbb\xbf"))["id"]
        step = "Give every row its own id."
        raise DataError.at(
            f"id {id!r} was already used in line {line}.",
            path=traces,
            line=number,
            field="id",
            next_step=step,
        )


def _numbered(traces: Path, row: int) -> tuple[int, bytes]:
    """Return a row's line number and line; blank lines do not count as rows."""
    with traces.open("rb") as file:
        rows = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        return next(pair for i, pair in enumerate(rows) if i == row)
