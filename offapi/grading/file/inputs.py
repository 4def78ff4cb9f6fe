"""Everything that grading a file depends on, read and checked before the first row is graded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offapi.checks.verdict import check_needs
from offapi.data.rows import read_rows, row_text
from offapi.errors import DataError
from offapi.files.hashing import sha256_file
from offapi.grading import rows
from offapi.grading.file.worker import GradingSettings
from offapi.grading.similarity.shingles import SAMPLE, common
from offapi.task import Task, load_task

FORMAT = 1  # of the graded file and its table
PIECE = 1 << 20  # bytes


@dataclass(frozen=True)
class GradingInputs:
    """The task, the traces file and what it is compared with.

    `lines` counts the file's lines, blank ones included.
    """

    task: Task
    traces: Path
    # id and text of the documents that no kept row may be near
    evaluation: tuple[tuple[str, str], ...]
    settings: GradingSettings
    key: Mapping[str, Any]  # what the graded file depends on
    lines: int

    @property
    def gold_checks(self) -> tuple[str, ...]:
        """Checks that look at gold: with one of them, gold cannot measure the grader."""
        checks = self.task.checks.items()
        return tuple(name for name, (check, _) in checks if check_needs(check, "gold"))


def read(
    task_file: Path,
    traces_file: Path,
    *,
    cap_by: str | None,
    gold: Path | None,
    against: tuple[Path, ...],
) -> GradingInputs:
    """Read and check the inputs, except the rows of the traces file.

    Raises DataError with file and line.
    """
    task = load_task(task_file)
    if gold is not None:
        rows.Gold.read(gold, task)
    evaluation = tuple(row for path in against for row in texts(path))
    lines, digest = _measured(traces_file)
    evaluation_texts = tuple(text for _, text in evaluation)
    ignored = np.union1d(common(list(_sample(traces_file, task))), common(evaluation_texts))
    settings = GradingSettings(
        task_file, sha256_file(task_file), traces_file, cap_by, gold, evaluation_texts, ignored
    )
    key: dict[str, Any] = {
        "task": settings.task_sha256,
        "traces": digest,
        "gold": sha256_file(gold) if gold else None,
        "cap_by": cap_by,
    }
    key |= {
        "against": hashlib.sha256(repr(evaluation).encode("utf-8", "surrogatepass")).hexdigest(),
        "format": FORMAT,
    }
    return GradingInputs(task, traces_file, evaluation, settings, key, lines)


def texts(path: Path) -> list[tuple[str, str]]:
    """Return id and text of each row of a file of documents or traces."""
    return [(row.id, row_text(row)) for row in read_rows(path)]


def groups(path: Path, task: Task) -> Iterator[str | None]:
    """Yield the group of each row of a traces file; skip rows that are not traces."""
    with path.open("rb") as file:
        for line in file:
            try:
                yield rows.parse(line, path, 0, task).group
            except DataError:
                continue


def _measured(path: Path) -> tuple[int, str]:
    """Return a file's number of lines and its SHA-256.

    Raises DataError where it cannot be read or is empty.
    """
    lines, digest, last, rows = 0, hashlib.sha256(), b"", False
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                lines, last, rows = lines + piece.count(b"\n"), piece, rows or not piece.isspace()
                digest.update(piece)
    except OSError as error:
        raise DataError.at(
            f"cannot read it: {error.strerror}.", path=path, next_step="Check the path."
        ) from None
    if not rows:
        raise DataError.at(
            "there are no rows in it.", path=path, next_step="Write one JSON object per line."
        )
    return lines + (not last.endswith(b"\n")), digest.hexdigest()


def _sample(path: Path, task: Task) -> Iterator[str]:
    """Yield the documents of some `SAMPLE` rows from all over the file; skip invalid rows."""
    with path.open("rb") as file:
        size, end = path.stat().st_size, 0
        for start in range(0, size, max(1, size // SAMPLE)):
            if start < end:
                continue
            file.seek(max(start - 1, 0))
            if start:
                file.readline()  # the rest of a line; no more than its end where one starts here
            line = file.readline()
            end = file.tell()
            try:
                yield rows.parse(line, path, 0, task).document
            except DataError:
                continue
