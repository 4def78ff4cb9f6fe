"""What a task can be made from: logged chats, documents with or without answers, a table.

A log of another tool is imported first, as `offapi traces import` does. Left out: what the answers
have in common (`infer_schema`, `infer_task`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.checks.answer_reading import read_text, read_trace
from offapi.data import rows
from offapi.data.documents import SUFFIXES, Document, KnownAnswer, say_left_out
from offapi.data.importers import guess_format, records
from offapi.data.importers.records import RecordFile
from offapi.data.importers.run import PLACE, ImportRequest, import_traces
from offapi.data.table import is_table, read_table
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError, nearest
from offapi.files.capture_file import CaptureFile
from offapi.files.folder import list_folder
from offapi.progress import Progress
from offapi.text.display import plural
from offapi.workers.removed import removed_at_end

TEXT_NAMES = (
    "document", "text", "body", "content", "message", "email", "input", "prompt", "question",
    "description", "ticket", "review", "article", "note", "transcript",
)  # fmt: skip
ANSWER_NAMES = ("answer", "output", "completion", "reply", "response", "gold")
ID_NAME = re.compile(r"(.*[_ -])?id|column 1|nr|no|number", re.IGNORECASE)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")


@dataclass(frozen=True)
class SourceRow:
    """One question with its answer, if it has one.

    `known`: a person gave the answer. `chat`: the row as it was logged.
    """

    id: str
    document: str
    answer: KnownAnswer | None = None
    known: bool = False
    system: str = ""
    chat: Trace | None = None
    forms: tuple[str, ...] = ()  # what was set aside to read the answer, or why it is no object


@dataclass(frozen=True)
class Source:
    """All rows of a source, what it is, and what was noticed while it was read."""

    what: str  # such as "a log of the format openai-ft"
    rows: tuple[SourceRow, ...]
    notes: tuple[str, ...] = ()


def read_source(
    path: Path, text: str | None, answers: Sequence[str], work: Path, progress: Progress
) -> Source:
    """Read `path`, whatever it is; `text` and `answers` name columns of a table.

    `work` is a folder that an import may use, and that does not exist yet.

    Raise DataError where nothing in it can be a question, ConfigError for a column it lacks.
    """
    if not path.exists():
        raise DataError("there is no such file or folder.", where=str(path), next_step="Check it.")
    if CaptureFile.find(path):
        return _kept(path)
    if path.is_dir() and list_folder(path, SUFFIXES).files:
        say_left_out(progress, path)
        return Source("a folder of documents", tuple(map(_of_row, rows.read_rows(path))))
    if path.is_file() and is_table(path):
        cells = [(row.line, row.cells) for row in read_table(path)]
        return _from_columns("a table", path, cells, text, answers)
    files = records.find_files((path,), but=work)
    first = _first_record(files)
    if first is None or _is_own(first):
        return Source("a file of rows", tuple(map(_of_row, rows.read_rows(path))))
    format = guess_format.best_reader(files)
    if format:
        return _imported(format, files, work, progress)
    lines = list(enumerate(_flat_rows(path, files, answers), start=1))
    return _from_columns("a table of JSON rows", path, lines, text, answers)


def _kept(path: Path) -> Source:
    """Return a server's kept answers, but those of another model: its terms may forbid learning."""
    found = rows.read_rows(path)
    own = [row for row in found if isinstance(row, Trace) and not row.escalated_to]
    notes = []
    if len(own) < len(found):
        count = plural(len(found) - len(own), "row")
        notes = [f"{count} left out: another model answered, whose terms may forbid learning"]
    return Source("answers that a server kept", tuple(map(_of_row, own)), tuple(notes))


def _is_own(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a document or trace of offapi, and no other tool's record."""
    messages = row.get("messages")
    if not isinstance(messages, list) or "id" not in row:
        return "document" in row
    last = messages[-1] if messages else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def _first_record(files: Sequence[RecordFile]) -> Mapping[str, Any] | None:
    """Return the first JSON object of the files; None where they begin with anything else."""
    try:
        job = next(records.read_jobs(files, PLACE), None)
        value = json.loads(job.records[0]) if job and job.records else None  # NaN too
    except (DataError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _of_row(row: rows.Row) -> SourceRow:
    if isinstance(row, Document):
        return SourceRow(row.id, row.text, row.gold or row.recorded_label, row.gold is not None)
    spoken = [m["content"] for m in row.messages if m["role"] in ("system", "developer")]
    read = read_trace(row)
    answer = row.gold or read.value or read_text(row.answer).text or None
    known = row.gold is not None
    return SourceRow(row.id, row.document, answer, known, "\n".join(spoken), row, read.forms)


def _imported(format: str, files: Sequence[RecordFile], work: Path, progress: Progress) -> Source:
    """Import the log into the folder `work`, read it, and remove the folder."""
    work.parent.mkdir(parents=True, exist_ok=True)
    with removed_at_end(work):
        work.mkdir(mode=0o700)
        out = work / "traces.jsonl"
        imported = import_traces(ImportRequest(format, files, {}), out, progress)
        found = tuple(map(_of_row, rows.read_rows(out)))
    notes = [
        f"{plural(each.count, 'row')} not usable: {each.reason} ({', '.join(each.places)})"
        for each in imported.dropped
    ]
    return Source(f"a log of the format {format}", found, tuple(notes))


def _not_read(path: Path) -> DataError:
    step = (
        "See why with `offapi traces import FORMAT`, then name its traces here; or write rows with"
        " a document and its gold."
    )
    what = "its records are neither documents nor a log of a known format with answers."
    return DataError.at(what, path=path, next_step=step)


def _flat_rows(
    path: Path, files: Sequence[RecordFile], answers: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Return the rows of a file of flat JSON objects; only an answer may hold others."""
    found: list[Mapping[str, Any]] = []
    for job in records.read_jobs(files, PLACE):
        for i, record in enumerate(job.records, start=job.first):
            try:
                value = orjson.loads(record)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                what, step = "the row is not a JSON object.", "Fix or remove it."
                raise DataError.at(what, path=path, line=i, next_step=step)
            nested = [name for name, cell in value.items() if isinstance(cell, dict | list)]
            if any(name.casefold() not in ANSWER_NAMES and name not in answers for name in nested):
                raise _not_read(path)
            found.append(value)
    return found


def _from_columns(
    what: str,
    path: Path,
    lines: Sequence[tuple[int, Mapping[str, Any]]],
    text: str | None,
    answers: Sequence[str],
) -> Source:
    """Return the rows of a table: one column is the question, the others are the answer."""
    names = list(dict.fromkeys(name for _, cells in lines for name in cells))
    columns = {name: _column(lines, name) for name in names}
    for name in filter(None, [text, *answers]):
        if name not in columns:
            raise ConfigError(
                f"there is no column {name!r}.", where=str(path), next_step=nearest(name, names)
            )
    asked = text or _text_column(path, columns)
    ids = next((name for name in names if _is_id(name, columns[name]) and name != asked), None)
    wanted = [name for name in names if name not in (asked, ids)]
    wanted = list(answers) or [name for name in wanted if any(map(_filled, columns[name]))]
    typed = {name: _typed(columns[name]) for name in wanted}
    found = []
    for i, document in enumerate(columns[asked]):
        if not _filled(document):
            continue
        answer: KnownAnswer | None = {name: typed[name][i] for name in wanted}
        if not wanted or all(value is None for value in _row_of(typed, i)):
            answer = None
        elif len(wanted) == 1 and wanted[0].casefold() in ANSWER_NAMES:
            answer = _one_answer(wanted[0], typed[wanted[0]][i])
        id = str(columns[ids][i]) if ids else f"row-{lines[i][0]}"
        found.append(SourceRow(id, str(document), answer, known=True))
    if not found:
        raise DataError(
            f"the column {asked!r} is empty.", where=str(path), next_step="Name --text."
        )
    notes = []
    if not text or not answers:
        notes.append("which columns are the text and the answer: say so with --text and --answer")
    about = f"{what}: {asked!r} is the text, {_listed(wanted)} the answer"
    return Source(about, tuple(found), tuple(notes))


def _column(lines: Sequence[tuple[int, Mapping[str, Any]]], name: str) -> list[Any]:
    return [cells.get(name) for _, cells in lines]


def _row_of(typed: Mapping[str, Sequence[Any]], i: int) -> list[Any]:
    """Return the `i`-th value of every column."""
    return [values[i] for values in typed.values()]


def _one_answer(name: str, value: Any) -> KnownAnswer:
    """Return the answer of a column that is called so: an object, a text, or its one field."""
    if isinstance(value, str):
        try:
            read = orjson.loads(value)
        except ValueError:
            return value
        return read if isinstance(read, dict) else {name: value}
    return value if isinstance(value, dict) else {name: value}


def _text_column(path: Path, columns: Mapping[str, Sequence[Any]]) -> str:
    """Return the column that holds the question: by its name, else that of the longest texts."""
    texts = [name for name in columns if str in map(type, columns[name])]
    if not texts:
        step = "Name the column with --text NAME."
        raise DataError("no column holds text.", where=str(path), next_step=step)
    named = [name for name in texts if name.casefold() in TEXT_NAMES]
    among = named or [name for name in texts if name.casefold() not in ANSWER_NAMES] or texts
    return max(among, key=lambda name: sum(len(str(value or "")) for value in columns[name]))


def _is_id(name: str, values: Sequence[Any]) -> bool:
    return bool(ID_NAME.fullmatch(name)) and len({str(value) for value in values}) == len(values)


def _filled(value: Any) -> bool:
    return value is not None and bool(str(value).strip())


def _typed(values: Sequence[Any]) -> list[Any]:
    """Return a column's cells as numbers or booleans if all of them are; empty ones as None."""
    if not all(value is None or isinstance(value, str) for value in values):
        return list(values)
    cells = [value.strip() if value and value.strip() else None for value in values]
    filled = [cell for cell in cells if cell is not None]
    if filled and all(_NUMBER.fullmatch(cell) for cell in filled):
        return [None if cell is None else orjson.loads(cell) for cell in cells]
    if filled and {cell.casefold() for cell in filled} <= {"true", "false"}:
        return [None if cell is None else cell.casefold() == "true" for cell in cells]
    return cells


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
