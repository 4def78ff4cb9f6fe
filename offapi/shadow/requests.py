"""Recorded requests: what was asked, what the frontier answered, and gold where it is known.

Documents with a `recorded_label` and traces are read alike. Left out: asking the student
(`offapi.shadow.run`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offapi.data import documents
from offapi.data.documents import Document, KnownAnswer
from offapi.data.rows import Row, read_rows, row_text
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.task import Task


@dataclass(frozen=True)
class RecordedRequests:
    """The rows that the frontier answered, and how many rows it did not."""

    rows: tuple[Row, ...]
    unanswered: int

    @property
    def with_gold(self) -> tuple[Row, ...]:
        """The rows whose right answer is known."""
        return tuple(row for row in self.rows if row.gold is not None)


def read_requests(path: Path, gold: Path | None, task: Task, limit: int | None) -> RecordedRequests:
    """Read the first `limit` rows of recorded requests, with the gold of a file of documents.

    Gold is found by id, or by the same text. Raise DataError where no row has an answer, or where
    the task cannot compare the gold.
    """
    rows: Sequence[Row] = read_rows(path)[:limit]
    if gold is not None:
        rows = _add_gold(rows, documents.read(gold), gold)
    answered = tuple(row for row in rows if _answered(row))
    if not answered:
        step = 'Name traces, or documents with "recorded_label": the answers to compare with.'
        raise DataError.at("no row has a recorded answer.", path=path, next_step=step)
    for row in answered:
        if row.gold is not None:
            task.check_gold(row.gold, row=row.id)
    return RecordedRequests(answered, len(rows) - len(answered))


def answered_by(row: Row, answer: KnownAnswer | None) -> Document:
    """Return `row` as a document whose recorded answer is `answer`."""
    return Document(row.id, row_text(row), row.gold, answer)


def group_of(row: Row) -> str | None:
    """Return what other rows `row` belongs with, if any."""
    return row.group if isinstance(row, Trace) else None


def _answered(row: Row) -> bool:
    return row.answered if isinstance(row, Trace) else row.recorded_label is not None


def _add_gold(rows: Sequence[Row], known: Sequence[Document], path: Path) -> list[Row]:
    golds = [row for row in known if row.gold is not None]
    by_id: Mapping[str, KnownAnswer | None] = {row.id: row.gold for row in golds}
    by_text: Mapping[str, KnownAnswer | None] = {row.text: row.gold for row in golds}
    found = [by_id.get(row.id) or by_text.get(row_text(row)) or row.gold for row in rows]
    if not any(gold is not None for gold in found):
        step = "Name documents with gold whose ids or texts are those of the requests."
        raise DataError.at("no request has gold in it.", path=path, next_step=step)
    return [replace(row, gold=gold) for row, gold in zip(rows, found, strict=True)]
