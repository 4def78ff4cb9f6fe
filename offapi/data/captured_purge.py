"""Take kept answers out of their file, so that no byte of them is left in its folder.

SQLite overwrites removed rows, the file is written anew without the space between them, and the
write-ahead log is emptied. A server may write meanwhile. Left out: copies made of the rows
(graded files, runs, backups), and what a disk keeps of freed blocks.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from offapi.errors import DataError
from offapi.files.capture_file import SECONDS_TO_WAIT, CaptureFile, opened

SECONDS_BETWEEN_TRIES = 0.05


@dataclass(frozen=True)
class Purge:
    """Which rows go: those before a time (seconds since 1970), of one id, or all of them."""

    before: float | None = None
    id: str | None = None

    @property
    def condition(self) -> tuple[str, tuple[str | float, ...]]:
        """The condition of SQL, and its values."""
        if self.id is not None:
            return "id = ? OR response = ?", (self.id, self.id)
        if self.before is not None:
            return "time < ?", (self.before,)
        return "true", ()


@dataclass(frozen=True)
class Purged:
    """How many rows were removed, and how many are left."""

    removed: int
    left: int


def purge(path: Path, what: Purge) -> Purged:
    """Remove rows of the file or folder `path`.

    Raise DataError where there is no file of kept answers, or where another process holds it.
    """
    found = CaptureFile.find(path)
    if found is None or found.until is not None:
        step = "Name the folder that `offapi serve --traces` writes to."
        raise DataError.at("there are no kept answers here.", path=path, next_step=step)
    # what SQLite writes while it rewrites the file stays in the folder
    os.environ["SQLITE_TMPDIR"] = str(found.path.parent.absolute())
    where, values = what.condition
    with opened(found.path, write=True) as base:
        base.execute("PRAGMA secure_delete = ON")
        removed = base.execute(f"DELETE FROM answers WHERE {where}", values).rowcount
        left = base.execute("SELECT count(*) FROM answers").fetchone()[0]
        base.execute("VACUUM")
        _empty_log(base, found.path)
    return Purged(removed, left)


def _empty_log(base: sqlite3.Connection, path: Path) -> None:
    """Empty the write-ahead log. Raise DataError where a reader holds on to it."""
    until = time.monotonic() + SECONDS_TO_WAIT
    while base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > until:
            what = "the rows are removed, but another process still reads them."
            step = "Run the command again when it has ended."
            raise DataError.at(what, path=path, next_step=step)
        time.sleep(SECONDS_BETWEEN_TRIES)
