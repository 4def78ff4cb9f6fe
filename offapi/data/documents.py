"""Documents: what a task reads, with the answers that are known for them.

Rows `{"id", "document", "gold"?, "recorded_label"?}` of JSON Lines or of one array, or a folder of
.txt and .md files. An answer is an object of fields, or a text where the task answers with text.
Other keys are ignored, unless they look like a typo. Left out: PDF.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson

from offapi.data.row_kind import refuse_other_kind
from offapi.errors import DataError
from offapi.files import contents, jsonl
from offapi.files.capture_file import CaptureFile
from offapi.files.folder import list_folder
from offapi.progress import Progress

SUFFIXES = (".txt", ".md")
OPTIONAL = ("gold", "recorded_label")
ALIKE = 0.85  # difflib's ratio: one letter of "gold", or two of "recorded_label"


# an object of fields, or the text of a task that answers with text
KnownAnswer = Mapping[str, Any] | str


@dataclass(frozen=True)
class Document:
    """One text to read.

    `gold` is the known answer, `recorded_label` is what some teacher once answered.
    """

    id: str
    text: str
    gold: KnownAnswer | None = None
    recorded_label: KnownAnswer | None = None


def read(path: Path) -> list[Document]:
    """Return the documents in a file of rows, in its order, or in a folder, by name.

    Raise DataError, with file, line, field and next step, for anything that is not a document.
    """
    folder = path.is_dir() and not CaptureFile.find(path)
    return _read_folder(path) if folder else _read_rows(path)


def say_left_out(progress: Progress, *paths: Path | None) -> None:
    """Say which files of the folders among `paths` are not read as documents, and what to do."""
    for path in dict.fromkeys(paths):
        if path is None or not path.is_dir() or CaptureFile.find(path):
            continue
        others = list_folder(path, SUFFIXES).left_out()
        if others:
            progress.say(others)


def write(path: Path, documents: Iterable[Document]) -> None:
    """Write `documents` as JSONL that `read` gives back; the file is whole or not there."""
    jsonl.write(path, map(as_row, documents))


def as_row(document: Document) -> dict[str, Any]:
    """Return `document` as a JSONL row, without unknown answers."""
    row: dict[str, Any] = {"id": document.id, "document": document.text}
    if document.gold is not None:
        row["gold"] = document.gold
    if document.recorded_label is not None:
        row["recorded_label"] = document.recorded_label
    return row


def check_keys(row: jsonl.JsonRow) -> None:
    """Raise DataError at an object whose key is nearly "gold" or "recorded_label".

    It would otherwise be ignored silently.
    """
    for name, value in row.value.items():
        if name in OPTIONAL or not isinstance(value, dict):
            continue
        meant = get_close_matches(name.lower(), OPTIONAL, n=1, cutoff=ALIKE)
        if meant and meant[0] not in row.value:
            step = f"Did you mean {meant[0]!r}? If not, give it another name."
            raise row.error(f"{name!r} is not a key of documents.", name, step)


def _read_rows(path: Path) -> list[Document]:
    rows = jsonl.read(path)
    jsonl.unique_ids(rows)
    return [parse(row) for row in rows]


def parse(row: jsonl.JsonRow) -> Document:
    """Return the document in `row`; raise DataError at the field that is wrong."""
    if "document" not in row.value:
        refuse_other_kind(row, "document")
    text = row.required("document", str)
    if not text.strip():
        raise row.error("the document is empty.", "document", "Remove the row, or add its text.")
    check_keys(row)
    gold, label = known_answer(row, "gold"), known_answer(row, "recorded_label")
    return Document(row.id, text, gold, label)


def fields_of(answer: KnownAnswer | None) -> Mapping[str, Any]:
    """Return the fields of an object; none of a text, or of no answer."""
    return answer if isinstance(answer, Mapping) else {}


def known_answer(row: jsonl.JsonRow, name: str) -> KnownAnswer | None:
    """Return the answer in the field `name`, None if absent or null.

    Raise DataError where it is neither an object nor a text that is not empty.
    """
    value = row.optional(name, object)
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, str) and value.strip():
        return value
    shown = orjson.dumps(value)[:40].decode("utf-8", "replace")
    step = "Write the answer's fields as an object, or its text if the task answers with text."
    raise row.error(f"{name!r} must be an object or a text, got {shown}.", name, step)


def _read_folder(path: Path) -> list[Document]:
    """Return every .txt and .md file below `path` but hidden ones; the id is the relative path."""
    folder = list_folder(path, SUFFIXES)
    if not folder.files:
        step = f"Put {' or '.join(SUFFIXES)} files into it, or name a file of rows (.jsonl)."
        what = "there are no documents in the folder."
        step = f"{folder.left_out()} {step}".lstrip()
        raise DataError.at(what, path=path, next_step=step)
    return [Document(name, _text(file)) for name, file in folder.files]


def _text(file: Path) -> str:
    data = contents.read_text(file)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8: {contents.not_utf_8(data, error.start)}."
        step = contents.save_as_utf_8()
        raise DataError.at(what, path=file, line=line, next_step=step) from None
    if not text.strip():
        raise DataError.at(
            "the document is empty.", path=file, next_step="Remove the file, or add its text."
        )
    return text
