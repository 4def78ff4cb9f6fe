"""Grade traces on every Ray worker: lines in, the same lines with their grade out.

A document with a `recorded_label` counts as a trace, as for `offapi grade`. Left out: choosing rows
and reporting on them (`offapi grade`), and ending a check that hangs in C code. The task's
`check_seconds` hold where Ray calls from the main thread, see docs/ray.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offapi.errors import ConfigError
from offapi.files.hashing import sha256_file
from offapi.grading import rows
from offapi.on_ray.lines import BATCH, Batch, Lines, as_batch, read_lines
from offapi.task import load_task


class GradeBatches:
    """The checks of the task in `task_file`. Raise ConfigError where it cannot be loaded."""

    def __init__(self, task_file: str) -> None:
        path = Path(task_file)
        self._task, self._sha256 = load_task(path), sha256_file(path)

    def __call__(self, batch: Batch) -> Lines:
        """Return the rows of `batch`, each with its `grade`; `error` there says why it has none.

        Raise DataError for a row that is neither a trace nor a document.
        """
        numbered = enumerate(read_lines(batch), start=1)
        return as_batch(rows.graded(line, self._grade(line, number)) for number, line in numbered)

    def _grade(self, line: bytes, number: int) -> Mapping[str, Any]:
        trace = rows.parse(line, BATCH, number, self._task)
        if not trace.answered:
            return {"error": rows.NO_ANSWER}
        try:
            return rows.as_dict(self._task.grade_trace(trace), self._sha256)
        except ConfigError as error:
            return {"error": f"{error.where}: {error.what}"}
