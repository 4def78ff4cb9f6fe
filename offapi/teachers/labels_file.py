"""The labels file: what a teacher answered, one JSON line a document, only ever appended to.

A line is on disk before the next answer is awaited, so a killed run loses none. Left out: grading,
which the recipes do, so that labels can be graded again without asking.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
import orjson

from offapi.errors import DataError
from offapi.files.append import append_whole, remedy
from offapi.files.lock import open_locked
from offapi.teachers.teacher import Usage
from offapi.text.display import plural
from offapi.text.type_names import plain_types

Key = tuple[str, str, str]  # document, teacher, prompt


@dataclass(frozen=True)
class Label:
    """One line: the teacher's raw text, and why it failed if it did."""

    id: str
    output: str
    status: Literal["ok", "failed"]
    usage: Usage
    seconds: float
    teacher: str
    prompt_sha256: str
    reason: str = ""

    @property
    def key(self) -> Key:
        """What identifies the question: document, teacher and prompt."""
        return self.id, self.teacher, self.prompt_sha256

    def line(self) -> bytes:
        """Return the label as written, with its newline; `reason` only where there is one."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not self.reason:
            del row["reason"]
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True)
class Content:
    """A labels file as read.

    The last line may have been cut off by a crash; it is then not part of `size`.
    """

    labels: tuple[Label, ...]
    size: int  # bytes of whole lines
    torn: int  # bytes of the line that was cut off

    @property
    def warning(self) -> str:
        """A sentence for the user when something was cut off, else empty."""
        if not self.torn:
            return ""
        return (
            f"The last line was cut off ({plural(self.torn, 'byte')}); its document is asked again."
        )


def read_labels(path: Path) -> Content:
    """Read a labels file; a torn last line is dropped.

    Raise DataError with file, line and field of a row that is not a label.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    *lines, rest = raw.split(b"\n")
    labels = [
        _parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if rest:  # no newline at the end: torn by a crash, or saved by an editor
        try:
            return Content((*labels, _parse(path, len(lines) + 1, rest)), len(raw), 0)
        except DataError:
            return Content(tuple(labels), len(raw) - len(rest), len(rest))
    return Content(tuple(labels), len(raw), 0)


def settle_labels(labels: Iterable[Label]) -> dict[Key, Label]:
    """Return the label that counts for each question: ok before failed, later before earlier."""
    settled: dict[Key, Label] = {}
    for label in labels:
        before = settled.get(label.key)
        if before is None or before.status == "failed" or label.status == "ok":
            settled[label.key] = label
    return settled


class Log:
    """A labels file open for appending, by one process at a time.

    A new file without a line is removed again. Raise RunError when another process writes it,
    DataError when it is not a labels file or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._new = path, not path.exists()
        self._file = self._opened()
        try:
            content = read_labels(path)
            self._size = content.size
            self._open_end(torn=content.torn)
        except BaseException:
            os.close(self._file)
            raise
        self.warning = content.warning
        self.settled: Mapping[Key, Label] = settle_labels(content.labels)

    def append(self, label: Label) -> None:
        """Write one whole line and wait until it is on disk."""
        self._write(label.line())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._new and not self._size:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _opened(self) -> int:
        """Open and lock the file. Raise RunError when another process has it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return open_locked(self.path, os.O_APPEND)
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def _open_end(self, torn: int) -> None:
        """Leave the file at the end of a whole line, where the next one starts."""
        if torn:
            os.ftruncate(self._file, self._size)
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._write(b"\n")

    def _write(self, line: bytes) -> None:
        try:
            append_whole(self._file, line, sync=True)  # a label lost in a power cut is asked again
        except OSError as error:
            what = f"the label cannot be written: {error.strerror}."
            hint = f"{remedy(error)} Then run the command again; earlier labels are kept."
            raise DataError.at(what, path=self.path, next_step=hint) from error
        self._size += len(line)


def _parse(path: Path, number: int, line: bytes) -> Label:
    try:
        try:
            return msgspec.json.decode(line, type=Label)
        except msgspec.ValidationError:
            return msgspec.convert(_with_counts(msgspec.json.decode(line)), Label)
    except msgspec.MsgspecError as error:
        hint = (
            "Check that `offapi label` wrote this file, or name another one with --out. Nothing"
            " was changed."
        )
        raise DataError.at(
            f"the line is not a label: {plain_types(str(error))}.",
            path=path,
            line=number,
            next_step=hint,
        ) from None
    except UnicodeDecodeError as error:
        hint = "Save the file as UTF-8, or name another one with --out."
        raise DataError.at(
            f"the line is not UTF-8: {error.reason}.", path=path, line=number, next_step=hint
        ) from None


def _with_counts(row: Any) -> Any:
    """Return a row with its token counts as numbers: 0.1.0 kept a server's true or false."""
    usage = row.get("usage") if isinstance(row, dict) else None
    if not isinstance(usage, dict):
        return row
    counts = {name: 0 if isinstance(count, bool) else count for name, count in usage.items()}
    return {**row, "usage": counts}


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError.at(
        f"cannot open the labels file: {error.strerror}.", path=path, next_step="Check the path."
    )
