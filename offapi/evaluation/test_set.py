"""What a model is scored on: documents with gold
answers, or traces whose last turn has a known answer.

Every row's gold is checked before a model is loaded, and every scoring is counted in the run
that trained it. Left out: rows without gold, which only a grader can score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offapi.data.rows import Row, read_rows
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.files.hashing import sha256_path
from offapi.task import Task
from offapi.training.run import CHECKPOINTS, MANIFEST, Run


def read(path: Path, task: Task, limit: int | None = None) -> Sequence[Row]:
    """The first `limit` rows of a file, each with gold that `task` can compare.

    DataError with file, line, field and next step for anything else.
    """
    rows = read_rows(path)[:limit]
    for row in rows:
        try:
            task.check_gold(row.gold or {}, row=row.id)
        except DataError as error:
            where = f"{path}{_line(path, row.id)}, document {row.id!r}, field 'gold'"
            raise DataError(error.what, where=where, next_step=error.next_step) from None
    return rows


def count_scoring(run: Run, data: Path, n: int) -> int:
    """Note in the run's manifest that `n` rows of the
    file `data` were scored; how often that file now was.
    """
    return run.count_scoring(sha256_path(data), n)


def scoring_sentence(times: int) -> str:
    """The count as a sentence, and what to make of it."""
    often = "once" if times == 1 else f"{times} times"
    return (
        f"This test set has now been scored {often} for this run; pick on validation, report on"
        " test once."
    )


def run_of(adapter: Path) -> Run | None:
    """The run that wrote the folder `adapter`, its final
    one or a checkpoint; None where it lies elsewhere.
    """
    around = adapter.resolve().parents[:2]
    found = (
        path for path in around if (path / MANIFEST).is_file() and (path / CHECKPOINTS).is_dir()
    )
    return next(map(Run.open, found), None)


def _line(path: Path, id: str) -> str:
    """`, line N` of the row with that id; nothing in a folder."""
    if path.is_dir():
        return ""
    return next(f", line {row.line}" for row in jsonl.read(path) if row.value.get("id") == id)
