"""Tables: CSV and TSV files, as rows of text cells by column.

The delimiter is found in the file (comma, semicolon, tab or bar). Left out: what the cells mean;
every cell is text, and an empty cell is an empty text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from offapi.errors import DataError
from offapi.files import contents

TABS = (".tsv", ".tab", ".tsv.gz")


@dataclass(frozen=True)
class TableRow:
    """One row: its cells by column, in the columns' order, and its place, for errors."""

    path: Path
    line: int  # 1-based; where it begins, since a cell may hold line breaks
    cells: Mapping[str, str]

    def error(self, what: str, column: str = "", next_step: str = "") -> DataError:
        """Return a DataError at this row."""
        return DataError.at(what, path=self.path, line=self.line, field=column, next_step=next_step)


def is_table(path: Path) -> bool:
    """Return whether the file is CSV or TSV, by its content. Raise DataError if it is not text."""
    try:
        with contents.open_text(path) as opened:
            return bool(contents.table_delimiter(opened.head))
    except (EOFError, OSError) as error:
        raise contents.unreadable(path, error) from None


def read_table(path: Path) -> list[TableRow]:
    """Return the rows below the header, of a file that has at least one; empty lines are skipped.

    Raise DataError, with file and line, for a file that is not such a table in UTF-8 or UTF-16.
    """
    data = contents.read_text(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8: {contents.not_utf_8(data, error.start)}."
        raise DataError.at(what, path=path, line=line, next_step=contents.save_as_utf_8()) from None
    records = list(_records(path, text, _delimiter(path, data)))
    if len(records) < 2:
        what = "there are no rows in it below the header." if records else "it is empty."
        step = "Write the columns' names in the first line and a row in each other."
        raise DataError.at(what, path=path, next_step=step)
    names = _names(path, *records[0])
    return [_row(path, line, names, cells) for line, cells in records[1:]]


def _delimiter(path: Path, data: bytes) -> str:
    if path.name.lower().endswith(TABS):
        return "\t"
    return contents.table_delimiter(data[: contents.HEAD]) or ","


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not empty, with the line where it begins."""
    csv.field_size_limit(contents.LARGEST)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        step = 'Quote a cell as "..." and double the quotes in it, or export the table again.'
        raise DataError.at(f"not CSV: {error}.", path=path, line=line, next_step=step) from None


def _names(path: Path, line: int, header: list[str]) -> tuple[str, ...]:
    """Return the columns' names; one without a name, as of an index, is called by its number."""
    numbered = enumerate(map(str.strip, header), start=1)
    names = tuple(name or f"column {number}" for number, name in numbered)
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        step = "Give every column its own name, in the first line."
        raise DataError.at(
            f"two columns are called {again!r}.", path=path, line=line, next_step=step
        )
    return names


def _row(path: Path, line: int, names: tuple[str, ...], cells: list[str]) -> TableRow:
    if len(cells) != len(names):
        what = f"the row has {len(cells)} cells, but the header has {len(names)}."
        step = 'Quote cells that hold the delimiter or a line break, as "...".'
        raise DataError.at(what, path=path, line=line, next_step=step)
    return TableRow(path, line, dict(zip(names, cells, strict=True)))
