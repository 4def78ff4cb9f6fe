"""Rows that are documents or traces: each row's own fields show which of the two it is.

A row with "messages" is a trace, a row with "document" is a document, and a file may contain both.
Left out: readers of one kind alone, see `documents` and `traces`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offapi.data import documents, traces
from offapi.data.documents import Document
from offapi.data.row_kind import refuse_other_kind
from offapi.data.traces import Trace
from offapi.files import jsonl
from offapi.files.capture_file import CaptureFile

Row = Document | Trace


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file in its order, or the documents of a folder.

    Raise DataError, with file, line, field and next step, for a row that is neither or both.
    """
    if path.is_dir() and not CaptureFile.find(path):
        return [*documents.read(path)]
    lines = jsonl.read(path)
    jsonl.unique_ids(lines)
    return [traces.parse(line) if is_trace(line) else documents.parse(line) for line in lines]


def read_documents(path: Path) -> list[Document]:
    """Return the documents of a file or folder; of a trace the text it was asked, not its answer.

    Raise DataError as `read_rows` does.
    """
    return [
        Document(row.id, row.document, row.gold) if isinstance(row, Trace) else row
        for row in read_rows(path)
    ]


def is_trace(row: jsonl.JsonRow) -> bool:
    """Return whether `row` is a trace; otherwise it is a document. A null field does not count.

    Raise DataError where the row has both a document and messages, or neither.
    """
    messages, document = (row.value.get(name) is not None for name in ("messages", "document"))
    if messages and document:
        what = 'the row has both a "document" and "messages".'
        step = 'Remove "messages" if the row is a document, or "document" if it is a trace.'
        raise row.error(what, "document", step)
    if "messages" not in row.value and "document" not in row.value:
        refuse_other_kind(row, "document")
        fields = ", ".join(row.value) or "nothing"
        step = f'Every row needs "document", a string, or "messages", an array; it has {fields}.'
        raise row.error('"document" and "messages" are both missing.', "document", step)
    return messages or "document" not in row.value


def row_text(row: Row) -> str:
    """Return the text that the row's answer is made from."""
    return row.document if isinstance(row, Trace) else row.text


def as_row(row: Row) -> dict[str, Any]:
    """Return `row` as a JSONL row that `read_rows` gives back."""
    return traces.as_row(row) if isinstance(row, Trace) else documents.as_row(row)
