"""Rows of a graded file by their number, read when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from offapi.data.traces import Trace
from offapi.grading import rows
from offapi.grading.table import Table
from offapi.task import Task


class Lines:
    """The lines of `path`, whose lengths the table knows."""

    def __init__(self, path: Path, table: Table, task: Task) -> None:
        self._path, self._task = path, task
        self._ends = np.cumsum(table["length"], dtype=np.int64)
        self._lengths = table["length"]
        self._file = os.open(path, os.O_RDONLY)

    def line(self, row: int) -> bytes:
        """A row as it stands, its newline included."""
        return self._stretch(row, row)

    def trace(self, row: int) -> Trace:
        """A row as a trace, its grade included."""
        return rows.parse(self.line(row), self._path, row + 1, self._task)

    def document(self, row: int) -> str:
        """What a row's answer was made from."""
        return self.trace(row).document

    def joined(self, some: Sequence[int]) -> bytes:
        """Several rows, one behind the other; those that stand so already are read at once."""
        gaps = (
            [0, *(np.flatnonzero(np.diff(some) != 1) + 1).tolist(), len(some)] if len(some) else [0]
        )
        return b"".join(self._stretch(some[start], some[end - 1]) for start, end in pairwise(gaps))

    def _stretch(self, first: int, last: int) -> bytes:
        """The rows from `first` to `last`."""
        start, end = int(self._ends[first]) - int(self._lengths[first]), int(self._ends[last])
        return os.pread(self._file, end - start, start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        os.close(self._file)
