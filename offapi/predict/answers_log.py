"""The answers file while it grows: every answer is on disk at once, and nothing is asked twice.

    OUT            the finished answers, in the order of the documents
    OUT.part       the answers so far, as they came
    OUT.key.json   what they depend on

Left out: what an answer is (`offapi.predict.prediction`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from offapi.data.documents import Document
from offapi.errors import ConfigError, DataError, RunError
from offapi.files import atomic
from offapi.files.append import append_or_refuse, refused, write_all
from offapi.files.hashing import hash64
from offapi.files.lock import open_locked
from offapi.predict.prediction import DocumentAnswer
from offapi.text.display import plural, shorten

OF = "document_hash"  # in a row: which text was answered


@dataclass(frozen=True)
class _Line:
    """Where an answer's line is, and the hash of the text that was answered."""

    finished: bool  # in OUT, else in OUT.part
    start: int
    size: int
    of: str


def text_hash(document: Document) -> str:
    """Return a short hash of the document's text."""
    return f"{hash64(document.text):016x}"


class AnswersLog:
    """The answers in and on the way to the file `out`, by one process at a time.

    `key` is what every answer depends on (JSON values). Raise ConfigError where the answers that
    are there depend on something else, or are not a file of answers; RunError where another process
    writes them or the disk refuses.
    """

    def __init__(self, out: Path, key: Mapping[str, Any]) -> None:
        self.out, self.part = out, out.with_name(f"{out.name}.part")
        self.key_file = out.with_name(f"{out.name}.key.json")
        self._lines: dict[str, _Line] = {}
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_locked(self.part, os.O_APPEND)
        except OSError as error:
            raise refused(error, out) from error
        try:
            self._begin(orjson.loads(orjson.dumps(dict(key))))
        except BaseException:
            self._close()
            raise

    def __contains__(self, document: Document) -> bool:
        """Whether this very document was answered."""
        line = self._lines.get(document.id)
        return line is not None and line.of == text_hash(document)

    def append(self, answer: DocumentAnswer, document: Document) -> None:
        """Write one answer; when this returns, a kill does not lose it."""
        row = {**answer.as_row(), OF: text_hash(document)}
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
        start = os.lseek(self._file, 0, os.SEEK_END)
        append_or_refuse(self._file, line, self.part)
        self._lines[answer.id] = _Line(False, start, len(line), text_hash(document))

    def answers(self, documents: Iterable[Document]) -> Iterator[DocumentAnswer]:
        """Yield the answers to `documents` that are known, in that order."""
        for line in self._read(document.id for document in documents):
            yield DocumentAnswer.of_row(orjson.loads(line))

    def finish(self, documents: Iterable[Document]) -> int:
        """Write the finished file: the documents' answers in their order, then any others.

        Return the number of the others, which earlier calls asked for. A file that is whole already
        stays as it is.
        """
        asked = [document.id for document in documents if document.id in self._lines]
        wanted = set(asked)
        others = [id for id in self._lines if id not in wanted]
        if [*asked, *others] != list(self._lines) or not self._all_finished():
            self._replace([*asked, *others])
        return len(others)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._close()

    def _begin(self, key: dict[str, Any]) -> None:
        finished = self.out.exists()
        if finished:
            self._note(self.out, finished=True)
        self._cut_torn_line()
        self._note(self.part, finished=False)
        if finished and not self.key_file.is_file():
            what = "the file is there, and `offapi predict` did not write it."
            raise ConfigError(what, where=str(self.out), next_step="Name another --out.")
        if self._lines:
            self._compare(key)
        else:
            atomic.write_file(self.key_file, orjson.dumps(key, option=orjson.OPT_INDENT_2))

    def _compare(self, key: dict[str, Any]) -> None:
        """Raise ConfigError unless the answers that are there depend on `key`."""
        try:
            before = orjson.loads(self.key_file.read_bytes())
        except (OSError, ValueError):
            before = {}
        changed = _first_difference(before, key)
        if changed is None:
            return
        name, old, new = changed
        count = plural(len(self._lines), "answer")
        what = f"{count} in it were made with {name} = {old}, and it is {new} now."
        step = f"Name another --out, or remove {self.out.name}* there to ask again."
        raise ConfigError(what, where=str(self.out), next_step=step)

    def _cut_torn_line(self) -> None:
        """Cut off what a power cut left of a line; a kill leaves none."""
        size = os.fstat(self._file).st_size
        step = 1 << 16
        end = size
        while end > 0:
            start = max(end - step, 0)
            at = os.pread(self._file, end - start, start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._file, end)

    def _note(self, path: Path, *, finished: bool) -> None:
        """Note where the answers in `path` are. Raise DataError for a line that is none."""
        start = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = orjson.loads(line)
                    self._lines[row["id"]] = _Line(finished, start, len(line), row[OF])
                except (ValueError, KeyError, TypeError):
                    what = "the line is not an answer of `offapi predict`."
                    step = "Name another --out."
                    raise DataError.at(what, path=path, line=number, next_step=step) from None
                start += len(line)

    def _read(self, ids: Iterable[str]) -> Iterator[bytes]:
        finished = os.open(self.out, os.O_RDONLY) if self.out.exists() else -1
        try:
            for line in (self._lines[id] for id in ids if id in self._lines):
                file = finished if line.finished else self._file
                yield os.pread(file, line.size, line.start)
        finally:
            if finished >= 0:
                os.close(finished)

    def _all_finished(self) -> bool:
        return self.out.exists() and all(line.finished for line in self._lines.values())

    def _replace(self, ids: list[str]) -> None:
        new = self.out.with_name(f"{self.out.name}.new")
        try:
            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                for line in self._read(ids):
                    write_all(file, line)
                atomic.sync(file)
            finally:
                os.close(file)
            os.replace(new, self.out)
            atomic.sync_path(self.out.parent)
        except (OSError, RunError) as error:
            new.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise refused(error, self.out) from error
            raise
        self._lines.clear()
        self._note(self.out, finished=True)

    def _close(self) -> None:
        """Leave the answers so far; delete their file where all are in the finished one."""
        if not any(not line.finished for line in self._lines.values()):
            self.part.unlink(missing_ok=True)
            if not self._lines and not self.out.exists():
                self.key_file.unlink(missing_ok=True)
        os.close(self._file)


def _first_difference(old: Any, new: Any, name: str = "") -> tuple[str, str, str] | None:
    """Return the first field in which two keys differ: its dotted name, and both values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else (name, _shown(old), _shown(new))
    for key in {**old, **new}:
        inner = f"{name}.{key}" if name else key
        found = _first_difference(old.get(key), new.get(key), inner)
        if found:
            return found
    return None


def _shown(value: Any) -> str:
    return "missing" if value is None else shorten(orjson.dumps(value).decode(), 60, "...")
