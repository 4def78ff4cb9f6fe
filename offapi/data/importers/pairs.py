"""Requests and results in different files, joined by their id.

Before the import begins both sides are written to a temporary database next to the output. Each
result then looks its request up there: memory stays flat, and the order is the results'. An id that
several different requests have joins nothing, since batches tend to number theirs alike.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json
from offapi.data.importers.shared.reasons import Unusable
from offapi.errors import RunError
from offapi.workers.removed import removed_at_end

BATCH = 5000  # rows per transaction

TABLES = """
CREATE TABLE requests (key TEXT PRIMARY KEY, body BLOB, several INT) WITHOUT ROWID;
CREATE TABLE results (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
NOTE_REQUEST = (
    "INSERT INTO requests VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET several = several OR body !="
    " excluded.body"
)


class Half(NamedTuple):
    """A request, or a result (`request` is None), that is useless without the other."""

    key: str
    record: Json
    request: Json


@contextmanager
def noted_halves(path: Path, halves: Iterable[Half]) -> Iterator[Path]:
    """Keep a database of `halves` at `path` while the block lasts.

    Raise RunError when the disk refuses.
    """
    path.unlink(missing_ok=True)
    with removed_at_end(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
            _note(path, halves)
        except (sqlite3.Error, OSError) as error:
            step = "Free some space on the disk of --out and run the same command again."
            raise RunError(
                f"the file cannot be written: {error}.", where=str(path), next_step=step
            ) from error
        yield path


def _note(path: Path, halves: Iterable[Half]) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + TABLES)
        for count, half in enumerate(halves, start=1):
            if half.request is None:
                base.execute("INSERT OR IGNORE INTO results VALUES (?)", (half.key,))
            else:
                base.execute(NOTE_REQUEST, (half.key, msgspec.json.encode(half.request)))
            if count % BATCH == 0:
                base.commit()


class Others:
    """The other halves, found by key."""

    def __init__(self, path: Path) -> None:
        self._base = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)

    def whole(self, half: Half) -> Json:
        """Return a result's record with its request; None for a request whose result gives the row.

        Raise Unusable without the other half.
        """
        if half.request is not None:
            if self._one("SELECT 1 FROM results WHERE key = ?", half.key) is None:
                raise Unusable(reasons.NO_RESULT)
            return None
        row = self._one("SELECT body, several FROM requests WHERE key = ?", half.key)
        if row is None:
            raise Unusable(reasons.NO_REQUEST)
        body, several = row
        if several:
            raise Unusable(reasons.AMBIGUOUS)
        return {**half.record, "request": msgspec.json.decode(body)}

    def _one(self, query: str, key: str) -> tuple[Json, ...] | None:
        row: tuple[Json, ...] | None = self._base.execute(query, (key,)).fetchone()
        return row

    def close(self) -> None:
        self._base.close()
