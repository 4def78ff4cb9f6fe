"""What an importing process does: records in, finished lines and reasons out.

Left out: everything that depends on the other rows (duplicates, ids), which `run` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from offapi.data import documents, traces
from offapi.data.documents import Document
from offapi.data.importers import importer
from offapi.data.importers import personal_data as personal
from offapi.data.importers.importer import Outcome
from offapi.data.importers.pairs import Others
from offapi.data.importers.records import ImportJob
from offapi.data.importers.shared import reasons as dropped
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.files import json_text
from offapi.files.hashing import hash64
from offapi.workers.ordered_pool import collect_garbage_rarely
from offapi.workers.supervised import CallNote

LOOKED_AT = 1000  # records of a file inspected for personal data; after them, one in SPARSE
SPARSE = 256


@dataclass(frozen=True)
class ImportSettings:
    """What every process needs to know.

    `others`: the database of halves, for formats that have them.
    """

    format: str
    maps: Mapping[str, str]
    others: Path | None


class ImportedRow(NamedTuple):
    """A row that was read.

    `line` is what is written for it, unless the row is a duplicate or its id is taken.
    """

    record: int
    dropped: Dropped | None
    line: bytes = b""
    digest: int = 0  # of its messages, or of its document
    id: str = ""
    document: bool = False  # with its known answer, instead of a trace


class ImportedJob(NamedTuple):
    """The rows of a job, by columns, which are sent faster between processes.

    `personal`: how many of the inspected rows contain personal data. `nulls`: the records whose NaN
    or Infinity was read as null.
    """

    columns: tuple[tuple[Any, ...], ...]
    personal: Counter[str]
    nulls: tuple[int, ...]

    def rows(self) -> Iterator[ImportedRow]:
        """Return the rows, in order."""
        return map(ImportedRow, *self.columns)


def importing(settings: ImportSettings, note: CallNote) -> Callable[[ImportJob], ImportedJob]:
    """Return how an importing process answers a job; it uses no `note`."""
    collect_garbage_rarely()
    return Worker(settings).work


class Worker:
    """A format's importer with what it needs."""

    def __init__(self, settings: ImportSettings) -> None:
        self._format = settings.format
        self._importer = importer.find_importer(settings.format, settings.maps)
        self._others = Others(settings.others) if settings.others else None

    def work(self, job: ImportJob) -> ImportedJob:
        """Return all rows of `job`, in order; a record without any is dropped, so none is lost."""
        rows: list[ImportedRow] = []
        kinds: Counter[str] = Counter()
        nulls: list[int] = []
        name, stem = job.file.name, job.file.stem
        for number, record in enumerate(job.records, start=job.first):
            if not record or record.isspace():
                continue
            value, null = decode_record(record)
            if null:
                nulls.append(number)
            outcomes = self._outcomes(value, record) or [dropped.NOTHING_IN_IT]
            place = {"format": self._format, "file": name, "line": number}
            new = [_row(outcome, place, stem) for outcome in outcomes]
            rows += new
            if number <= LOOKED_AT or number % SPARSE == 0:
                kinds.update(kind for row in new for kind in personal.personal_kinds(row.line))
        columns = tuple(zip(*rows, strict=True)) or ((),) * len(ImportedRow._fields)
        return ImportedJob(columns, kinds, tuple(nulls))

    def _outcomes(self, value: Any, record: bytes) -> list[Outcome]:
        """Return what the importer makes of a record; PAIRED for a request whose result is the row.

        A list within a list is read as its objects.
        """
        if isinstance(value, Dropped):
            return [value]
        if not isinstance(value, list) or not value:
            return self._of_object(value, record)
        return [outcome for each in value for outcome in self._of_object(each, record)]

    def _of_object(self, value: Any, record: bytes) -> list[Outcome]:
        """Return what the importer makes of an object in `record`.

        An importer's own error is a reason too, and does not end the import.
        """
        if not isinstance(value, dict):
            return [dropped.NOT_AN_OBJECT]
        try:
            if self._others is None or not any(mark in record for mark in self._importer.marks):
                return list(self._importer.rows(value))
            return list(self._joined(value, self._others))
        except RecursionError:
            return [dropped.TOO_DEEP]
        except Exception as error:
            reason = f"offapi could not read it ({type(error).__name__}): please report it"
            return [Dropped(reason, malformed=True, detail=str(error))]

    def _joined(self, value: Mapping[str, Any], others: Others) -> Iterator[Outcome]:
        """As `_outcomes`, for a record that may be a request or a result without the other."""
        halves = list(self._importer.halves(value)) if self._importer.halves else []
        if not halves:
            yield from self._importer.rows(value)
        for half in halves:
            try:
                whole = others.whole(half)
            except Unusable as error:
                yield error.dropped
                continue
            if whole is None:
                yield dropped.PAIRED
            else:
                yield from self._importer.rows(whole)


def decode_record(record: bytes) -> tuple[Any, bool]:
    """Return a record's JSON value, and whether NaN or Infinity in it was read as null.

    The value is a Dropped where the record is not JSON.
    """
    try:
        return msgspec.json.decode(record), False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = json_text.with_nan(record)
    if value is not None:
        return orjson.loads(orjson.dumps(value)), True
    what, _, detail = json_text.why_not_json(record).partition(": ")
    reason = dropped.NOT_UTF_8 if what == dropped.NOT_UTF_8.reason else dropped.NOT_JSON
    return replace(reason, detail=detail), False


def _row(outcome: Outcome, place: Mapping[str, Any], stem: str) -> ImportedRow:
    """Return the row of `outcome`, with `place` in its source."""
    number: int = place["line"]
    if isinstance(outcome, Dropped):
        return ImportedRow(number, outcome)
    id = outcome.id or f"{stem}-{number}"
    document = isinstance(outcome, Document)
    if isinstance(outcome, Document):
        row, content = documents.as_row(outcome) | {"source": place}, "document"
    else:
        source = {**place, **(outcome.source or {})}
        row, content = traces.as_row(outcome) | {"source": source}, "messages"
    del row["id"]
    try:
        said, rest = orjson.dumps(row.pop(content)), orjson.dumps(row)
    except TypeError:
        return ImportedRow(number, dropped.TOO_DEEP)
    line = b'{"id":%b,"%b":%b,%b\n' % (orjson.dumps(id), content.encode(), said, rest[1:])
    return ImportedRow(number, None, line, hash64(said), id, document)
