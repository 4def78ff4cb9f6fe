"""The file of answers that a server has kept (SQLite): where it is, and its rows as JSON Lines.

Wherever traces are read, the file or its folder may be named. `FOLDER@120` means its rows up to
number 120, so that a run that is resumed reads what it began with. Left out: writing and removing
rows (`offapi.data.captured`, `offapi.data.captured_purge`).
"""

from __future__ import annotations

import hashlib
import io
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from offapi.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

NAME = "traces.sqlite"
APPLICATION = 0x0FFA9100  # in the file's header, which tells it from other SQLite files
VERSION = 1  # of the tables
HEADER = 100  # bytes
SECONDS_TO_WAIT = 10.0  # for a lock of another process
SELECT = "SELECT row FROM answers WHERE number <= ? ORDER BY number"
LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'answers'"
_UNTIL = re.compile(r"(.+)@(\d+)")
_EVERY = 2**63 - 1


@dataclass(frozen=True)
class CaptureFile:
    """A file of kept answers; `until` is the number of the last row to read."""

    path: Path
    until: int | None = None

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Return what `path` names, a folder or a file with kept answers; None for all else."""
        until = _UNTIL.fullmatch(path.name)
        if until and not path.exists():
            found = cls.find(path.with_name(until[1]))
            return cls(found.path, int(until[2])) if found else None
        file = path / NAME if path.is_dir() else path
        return cls(file) if _is_capture(file) else None

    def lines(self) -> Iterator[bytes]:
        """Yield the rows as JSON lines, as they were when the first one was read.

        Raise DataError where the file cannot be read.
        """
        until = _EVERY if self.until is None else self.until
        with opened(self.path) as base:
            for (row,) in base.execute(SELECT, (until,)):
                yield row + b"\n"

    def stream(self) -> io.BufferedReader:
        """Return the rows as a binary stream of lines."""
        return io.BufferedReader(_Lines(self.lines()), buffer_size=1 << 16)

    def last(self) -> int:
        """Return the number of the newest row ever written; numbers are not used again."""
        with opened(self.path) as base:
            found = base.execute(LAST).fetchone()
        return int(found[0]) if found else 0

    def sha256(self) -> str:
        """Return the SHA-256 of the rows, wherever the file lies."""
        digest = hashlib.sha256()
        for line in self.lines():
            digest.update(line)
        return digest.hexdigest()


def pinned(path: Path, began: str | None = None) -> Path:
    """Return `path`, or of kept answers `path@N`: the rows of now, whatever comes later.

    `began` is the path that a run which is resumed began with; its rows are read again.
    """
    found = CaptureFile.find(path)
    if found is None or found.until is not None:
        return path
    before = _UNTIL.fullmatch(began or "")
    return path.with_name(f"{path.name}@{before[2] if before else found.last()}")


@contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the file, and check its version. Raise DataError for what SQLite cannot do with it."""
    uri = f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
    try:
        base = sqlite3.connect(uri, uri=True, timeout=SECONDS_TO_WAIT, isolation_level=None)
        with closing(base):
            check_version(base, path)
            yield base
    except sqlite3.Error as error:
        what = f"the kept answers cannot be {'changed' if write else 'read'}: {error}."
        step = "Check the disk and who else has the file open; then run the command again."
        raise DataError.at(what, path=path, next_step=step) from error


def check_version(base: sqlite3.Connection, path: Path) -> None:
    """Raise DataError for tables of another version."""
    version = base.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        what = f"its tables have version {version}, and this offapi reads version {VERSION}."
        raise DataError.at(what, path=path, next_step="Use the version of offapi that wrote it.")


def _is_capture(file: Path) -> bool:
    try:
        with file.open("rb") as opened_file:
            head = opened_file.read(HEADER)
    except OSError:
        return False
    return head.startswith(b"SQLite format 3\0") and head[68:72] == APPLICATION.to_bytes(4)


class _Lines(io.RawIOBase):
    """Lines as a file that is read once."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines, self._rest, self._read = lines, b"", 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._read

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill as much of the buffer as there are lines for."""
        view = memoryview(buffer)
        count = 0
        while count < len(view):
            self._rest = self._rest or next(self._lines, b"")
            if not self._rest:
                break
            piece = self._rest[: len(view) - count]
            view[count : count + len(piece)] = piece
            self._rest, count = self._rest[len(piece) :], count + len(piece)
        self._read += count
        return count
