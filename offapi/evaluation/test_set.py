"""What a model is scored on: documents with gold
answers, or traces whose last turn has a known answer.

Every row's gold is checked before a model is loaded, and every scoring is counted in the run
that trained it. Left out: rows without gold, which only a grader can score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from offapi.data import documents, traces
from offapi.data.documents import Document
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.files.atomic import sha256
from offapi.task.task import Task
from offapi.training.run import CHECKPOINTS, MANIFEST, Run

Row = Document | Trace


def read(path: Path, task: Task, limit: int | None = None) -> Sequence[Row]:
    """The first `limit` rows of a documents or traces file, each with gold that `task` can compare.

    DataError with file, line, field and next step for anything else.
    """
    rows: Sequence[Row] = (traces.read if _holds_traces(path) else documents.read)(path)[:limit]
    for row in rows:
        try:
            task.check_gold(row.gold or {}, row=row.id)
        except DataError as error:
            where = f"{path}{_line(path, row.id)}, document {row.id!r}, field 'gold'"
            raise DataError(error.what, where=where, next_step=error.next_step) from None
    return rows


def text(row: Row) -> str:
    """What the answer is made from."""
    return row.document if isinstance(row, Trace) else row.text


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, whatever it is
    called; of a folder, of its files' names and bytes.
    """
    if not path.is_dir():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def count_scoring(run: Run, data: Path, n: int) -> int:
    """Note in the run's manifest that `n` rows of the
    file `data` were scored; how often that file now was.
    """
    return run.count_scoring(digest(data), n)


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


def _holds_traces(path: Path) -> bool:
    first = {} if path.is_dir() else jsonl.read(path)[0].value
    return "messages" in first and "document" not in first


def _line(path: Path, id: str) -> str:
    """`, line N` of the row with that id; nothing in a folder."""
    if path.is_dir():
        return ""
    return next(f", line {row.line}" for row in jsonl.read(path) if row.value.get("id") == id)
