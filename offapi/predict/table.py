"""Answers as a table (CSV): one row a document, three columns a field.

Left out: reading it again; the JSON lines are the record.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from offapi.files import atomic
from offapi.predict.prediction import DocumentAnswer

FORMULA = (*"=+-@＝＋－＠", "\t", "\r", "\n")  # a text that begins so is run by spreadsheets


def write_table(path: Path, names: Sequence[str], answers: Iterable[DocumentAnswer]) -> None:
    """Write the fields `names` of all answers, with confidence and whether each is accepted."""
    text = io.StringIO()
    writer = csv.writer(text)  # RFC 4180 line ends, so that a lone one is quoted
    parts = [[name, f"{name} confidence", f"{name} accepted"] for name in names]
    header = [cell for part in parts for cell in part]
    writer.writerow(["id", *map(_cell, header), "accepted", "error"])
    for answer in answers:
        writer.writerow(_row(answer, names))
    atomic.write_file(path, text.getvalue().encode("utf-8", "replace"))


def _row(answer: DocumentAnswer, names: Sequence[str]) -> list[object]:
    cells: list[object] = [_cell(answer.id)]
    for name in names:
        field = answer.fields.get(name)
        if field is None:
            cells += ["", "", ""]
            continue
        sure = "" if field.confidence is None else round(field.confidence, 4)
        cells += [_cell(field.value), sure, _cell(field.accepted)]
    return [*cells, _cell(answer.accepted), _cell(answer.error)]


def _cell(value: Any) -> object:
    """Return a value as a cell that no spreadsheet takes for a formula; a number stays one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f"'{text}" if text.startswith(FORMULA) else text
