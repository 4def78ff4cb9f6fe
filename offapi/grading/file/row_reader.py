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
    """The lines of `path`, whose lengths the table holds."""

    def __init__(self, path: Path, table: Table, task: Task) -> None:
        self._path, self._task = path, task
        self._ends = np.cumsum(table["length"], dtype=np.int64)
        self._lengths = table["length"]
        self._file = os.open(path, os.O_RDONLY)

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self._lengths)

    def line(self, row: int) -> bytes:
        """Return a row as it is in the file, its newline included."""
        return self._stretch(row, row)

    def trace(self, row: int) -> Trace:
        """Return a row as a trace, its grade included."""
        return rows.parse(self.line(row), self._path, row + 1, self._task)

    def document(self, row: int) -> str:
        """Return the document of a row."""
        return self.trace(row).document

    def joined(self, chosen: Sequence[int]) -> bytes:
        """Return several rows joined; neighbours in the file are read at once."""
        edges = [0]
        if len(chosen):
            edges += [*(np.flatnonzero(np.diff(chosen) != 1) + 1).tolist(), len(chosen)]
        stretches = pairwise(edges)
        return b"".join(self._stretch(chosen[start], chosen[end - 1]) for start, end in stretches)

    def _stretch(self, first: int, last: int) -> bytes:
        """Return the rows from `first` to `last`."""
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
