"""Batches of Ray Data as the lines of offapi's files, so that every command reads what Ray wrote.

A row is one line of JSON in the column `text`, as `ray.data.read_text` gives it. Tables whose
columns are the row's own keys, such as Parquet, are read too. Left out: columns of objects in the
output, because Arrow gives all rows of a column one type and fills in the keys that a row lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from offapi.data import documents
from offapi.data.documents import Document
from offapi.data.rows import is_trace
from offapi.data.traces import parse as parse_trace
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.files.jsonl import JsonRow

TEXT = "text"  # the column of lines
BATCH = Path("a batch of Ray Data")  # the place of a row in errors, where no path is known

Batch = Mapping[str, Any]  # columns of equal length, arrays or lists
Lines = dict[str, list[str]]


def read_lines(batch: Batch) -> list[bytes]:
    """Return each row of `batch` as a line of JSON; blank lines are skipped.

    Raise DataError for a batch with neither lines nor the columns of documents or traces.
    """
    if "document" in batch or "messages" in batch:
        return [_as_json(batch, at) for at in range(len(batch["id"]))]
    if TEXT not in batch:
        step = "Read JSON Lines with ray.data.read_text, or give the columns id and document."
        what = f"the batch has no column {TEXT!r}, only {', '.join(batch) or 'nothing'}."
        raise DataError(what, where=str(BATCH), next_step=step)
    return [line.encode() for line in batch[TEXT] if line.strip()]


def read_rows(batch: Batch) -> list[JsonRow]:
    """Return the rows of `batch`, each with an id of its own.

    Raise DataError for a batch without rows of offapi's, a line that is not a JSON object, or an
    id that is used twice in the batch: answers are given back by id.
    """
    numbered = enumerate(read_lines(batch), start=1)
    rows = [jsonl.parse(BATCH, number, line) for number, line in numbered]
    jsonl.unique_ids(rows)
    return rows


def read_document(row: JsonRow) -> Document:
    """Return the document in `row`, or the text that a trace was asked.

    Raise DataError, naming the row by its id, for anything else.
    """
    if is_trace(row):
        trace = parse_trace(row)
        return Document(trace.id, trace.document, trace.gold)
    return documents.parse(row)


def as_batch(lines: Iterable[bytes]) -> Lines:
    """Return `lines` as a batch with the one column `text`, without their newlines."""
    return {TEXT: [line.decode().rstrip("\n") for line in lines]}


def write_lines(dataset: Any, folder: str) -> None:
    """Write the column `text` of a Ray dataset as `.jsonl` files into `folder`.

    A repeated write task replaces its own file, so a row is written once.
    """
    from ray.data.datasource import BlockBasedFileDatasink

    class LinesSink(BlockBasedFileDatasink):  # type: ignore[misc]
        def write_block_to_file(self, block: Any, file: Any) -> None:
            for row in block.iter_rows(public_row_format=False):
                file.write(f"{row[TEXT]}\n".encode())

    dataset.write_datasink(LinesSink(folder, file_format="jsonl"))


def _as_json(batch: Batch, at: int) -> bytes:
    """Return row `at` of a table as JSON; NumPy's values, also within objects, as Python's."""
    row = {name: column[at] for name, column in batch.items()}
    return orjson.dumps(row, default=lambda value: value.tolist())
