"""Reviewed documents that a run never learned: what its confidence may be calibrated on.

Documents that the student learned, or near ones, would look surer than new ones; they are left out,
as `offapi grade` leaves them out of training. Left out: gold that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offapi.data.documents import Document
from offapi.data.rows import Row, read_documents
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError, OffapiError
from offapi.evaluation import test_set
from offapi.grading.similarity.contamination import near_or_same
from offapi.task import Task
from offapi.text.display import plural, share
from offapi.training.run import Run

LEARNED_FROM = ("data", "traces", "rollouts")  # a run's keys that name what it learned from


@dataclass(frozen=True)
class ReviewedDocuments:
    """Documents with gold, each a unit of its own; how many were left out, and why."""

    documents: Sequence[Document]
    learned: int = 0
    grouped: int = 0
    unknown: tuple[str, ...] = ()  # files of the run that are not there any more

    def lines(self) -> list[str]:
        """Return sentences on what was left out."""
        every, lines = len(self.documents) + self.learned + self.grouped, []
        if self.learned:
            count = share(self.learned, every, "document", ("is", "are"))
            lines.append(f"{count} left out: the student learned it, or one nearly the same.")
        if self.grouped:
            lines.append(
                f"{share(self.grouped, every, 'document', ('is', 'are'))} left out: of a group that"
                " another document stands for."
            )
        for path in self.unknown:
            lines.append(f"{path} is not there, so documents learned from it are not recognised.")
        return lines


def read_reviewed(path: Path, task: Task, run: Run) -> ReviewedDocuments:
    """Read the documents in `path`, without those that `run` learned.

    Of documents of one group the first one counts. Raise DataError for a document without gold,
    and where none is left; ConfigError for a task that answers with text.
    """
    if task.free_text:
        what = f"task {task.name!r} answers with text, and only fields can be calibrated."
        raise ConfigError(what, next_step="Name a run whose task has a schema.")
    rows = test_set.read(path, task)
    singles = _first_of_groups(rows)
    known, unknown = _learned_texts(run)
    documents = [_document(row) for row in singles]
    learned = near_or_same([document.text for document in documents], known)
    kept = [document for i, document in enumerate(documents) if i not in learned]
    if not kept:
        raise DataError.at(
            f"the student learned {plural(len(documents), 'document')}, and there are no others.",
            path=path,
            next_step="Name reviewed documents that were not trained on.",
        )
    return ReviewedDocuments(kept, len(learned), len(rows) - len(singles), unknown)


def _learned_texts(run: Run) -> tuple[list[str], tuple[str, ...]]:
    """Return the texts that a run learned from, and its files that cannot be read."""
    config, texts, unknown = run.manifest.get("config") or {}, [], []
    for key in LEARNED_FROM:
        if not isinstance(config.get(key), str):
            continue
        try:
            texts += [document.text for document in read_documents(Path(config[key]))]
        except (OSError, OffapiError):
            unknown.append(config[key])
    return texts, tuple(unknown)


def _first_of_groups(rows: Sequence[Row]) -> list[Row]:
    seen: set[str] = set()
    kept = []
    for row in rows:
        group = row.group if isinstance(row, Trace) else None
        if group is None or group not in seen:
            kept.append(row)
        seen.update([group] if group is not None else [])
    return kept


def _document(row: Row) -> Document:
    return Document(row.id, row.document, row.gold) if isinstance(row, Trace) else row
