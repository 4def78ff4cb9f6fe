"""What a model is scored on: documents with gold, or traces whose last answer has gold.

Every row's gold is checked before a model is loaded, and every scoring is counted in the run that
trained it. Left out: rows without gold, which only a grader can score.
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
    """Return the first `limit` rows of a file, each with gold that `task` can compare.

    Raises DataError with file, line, field and next step for anything else.
    """
    rows = read_rows(path)[:limit]
    for row in rows:
        if row.gold is None and task.free_text and not task.needs_gold:
            continue
        try:
            if row.gold is None:
                raise _no_gold(task, rows, row)
            task.check_gold(row.gold, row=row.id)
        except DataError as error:
            where = f"{jsonl.place_of(path, row.id)}, document {row.id!r}, field 'gold'"
            raise DataError(error.what, where=where, next_step=error.next_step) from None
    return rows


def _no_gold(task: Task, rows: Sequence[Row], row: Row) -> DataError:
    """Return the error for a row without gold, with what to do where no row has any."""
    gold = '"gold": ' + ("TEXT" if task.free_text else "{...}")
    step = f"Add the right answer to each row as {gold}, or remove the rows that have none."
    if not any(row.gold is not None for row in rows):
        step = (
            f"Accuracy needs answers that are known to be right: write some as {gold}. To score"
            " logged answers by the task's checks alone, use `offapi grade`."
        )
    return DataError("the row has no gold.", where=f"document {row.id!r}", next_step=step)


def count_scoring(run: Run, data: Path, n: int) -> int:
    """Note in the run's manifest that `n` rows of `data` were scored; return how often so far."""
    return run.count_scoring(sha256_path(data), n)


def scoring_sentence(times: int) -> str:
    """Return the count as a sentence with advice."""
    often = "once" if times == 1 else f"{times} times"
    return (
        f"This test set has now been scored {often} for this run. Choose between models on"
        " validation documents, and report on the test set once."
    )


def run_of(adapter: Path) -> Run | None:
    """Return the run that wrote the folder `adapter`, final or a checkpoint; None without a run."""
    parents = adapter.resolve().parents[:2]
    runs = (
        path for path in parents if (path / MANIFEST).is_file() and (path / CHECKPOINTS).is_dir()
    )
    return next(map(Run.open, runs), None)
