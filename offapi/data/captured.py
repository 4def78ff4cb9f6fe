"""Keep what a server answered, for grading and training, without holding up an answer.

One thread writes what has come up since its last commit (SQLite, write-ahead log). A commit
survives a kill of the process at once, and a power cut within moments. Whatever the disk does is
counted and said once, never raised. Left out: what is read (`offapi.files.capture_file`), and rows
taken out by hand (`offapi.data.captured_purge`).
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from offapi.data.captured_answer import CapturedAnswer
from offapi.errors import ConfigError, DataError
from offapi.files.capture_file import APPLICATION, NAME, VERSION, CaptureFile, check_version
from offapi.text.display import plural

LEAST_BYTES = 1 << 20
LOG_BYTES = 4 << 20  # of the write-ahead log
WAITING_BYTES = 16 << 20  # rows that wait for a lock; beyond that they are lost
BATCH = 256  # rows of a commit, and of a step of removing
FREED = 0.05  # of the allowed bytes, freed at a time
SECONDS_LOCKED = 0.1  # of one try to write
SECONDS_CLOSING = 5.0
SECONDS_BETWEEN_LOOKS = 60.0  # for rows that have come of age
DAY = 86_400.0
SECONDS_BETWEEN_TRIES = 0.02
FULL, LOCKED, LARGE, UNWRITABLE = "disk full", "locked", "too large", "cannot be written"
REASONS = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_FULL: FULL,
}
TABLES = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    response TEXT NOT NULL,
    time REAL NOT NULL,
    row BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_time ON answers (time);
CREATE INDEX IF NOT EXISTS answers_response ON answers (response);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
INSERT = "INSERT OR IGNORE INTO answers (id, response, time, row) VALUES (?, ?, ?, ?)"
OLDEST = "DELETE FROM answers WHERE number IN (SELECT number FROM answers ORDER BY number LIMIT ?)"
AGED = "DELETE FROM answers WHERE number IN (SELECT number FROM answers WHERE time < ? LIMIT ?)"


@dataclass(frozen=True)
class _Waiting:
    """A row to write, and who waits for it."""

    values: tuple[str, str, float, bytes]
    done: Future[bool]


class CaptureStore:
    """The kept answers of a server, in `folder`.

    `max_bytes` is the most that its files may take: the oldest rows go first. `keep_days` is how
    long a row stays. `say` gets one sentence for each kind of trouble. Raise ConfigError for a
    folder that holds other files, DataError for a file that cannot be written or is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 1 << 30,
        keep_days: float = 30.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        if max_bytes < LEAST_BYTES:
            what = f"kept answers need {LEAST_BYTES >> 20} MiB or more."
            raise ConfigError(what, next_step="Allow them more room.")
        self.path = folder / NAME
        self.keep_days, self.say = keep_days, say
        self.log_bytes = min(LOG_BYTES, max_bytes // 8)
        self.base_bytes = max_bytes - 3 * self.log_bytes  # room for a commit before old rows go
        self.kept, self.removed = 0, 0
        self.lost: Counter[str] = Counter()  # rows that were not kept, by reason
        self.behind = False  # the disk or a lock holds up the writer: do not wait for it
        self._lock = threading.Lock()  # of the counts
        self._waiting_bytes = 0
        self._inode = (0, 0)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        _create(folder, self.path, self.log_bytes)
        self._thread = threading.Thread(target=self._run, name="offapi-capture", daemon=True)
        self._thread.start()

    def keep(self, answer: CapturedAnswer) -> Future[bool]:
        """Write the answer soon; the future says at the end whether it was. Nothing raises."""
        done: Future[bool] = Future()
        done.set_running_or_notify_cancel()  # who stops waiting does not cancel the row
        try:
            row = orjson.dumps(answer.as_row())
        except TypeError as error:
            return self._lose(done, UNWRITABLE, str(error))
        if len(row) > self.log_bytes // 2:
            return self._lose(done, LARGE, plural(len(row), "byte"))
        with self._lock:
            fits = not self._closed and self._waiting_bytes + len(row) <= WAITING_BYTES
            self._waiting_bytes += len(row) if fits else 0
        if not fits:
            return self._lose(done, LOCKED, "too many wait")
        self._queue.put(_Waiting((answer.id, answer.response, answer.time, row), done))
        return done

    def close(self) -> None:
        """Write what is waiting, for some seconds at most, and end the thread."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(2 * SECONDS_CLOSING)

    def _lose(self, done: Future[bool], reason: str, why: str) -> Future[bool]:
        with self._lock:
            self.lost[reason] += 1
            first = self.lost[reason] == 1
        if first:
            self.say(
                f"An answer could not be kept in {self.path}: {reason} ({why}). It was sent all the"
                " same. This is said once; the metrics count such answers."
            )
        done.set_result(False)
        return done

    def _run(self) -> None:
        batch: list[_Waiting] = []
        base: sqlite3.Connection | None = None
        ends: float | None = None
        while True:
            batch, ended = self._gather(batch, wait=ends is None)
            ends = ends or (time.monotonic() + SECONDS_CLOSING if ended else None)
            idle = not batch
            try:
                base = self._connected(base)
                self._commit(base, batch)
                batch = []
                self._make_room(base, idle=idle)
            except (sqlite3.Error, OSError) as error:
                batch = self._failed(error, batch, base, last=_past(ends))
            if ends is not None and not batch and self._queue.empty():
                break
        if base is not None:
            with suppress(sqlite3.Error), closing(base):
                base.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _gather(self, batch: list[_Waiting], *, wait: bool) -> tuple[list[_Waiting], bool]:
        """Return what waits to be written, after `batch`, and whether the store was closed."""
        ended = False
        size = sum(len(row.values[3]) for row in batch)
        with suppress(queue.Empty):
            while len(batch) < BATCH and size < self.log_bytes // 2:
                first = wait and not batch and not ended
                row = self._queue.get(first, SECONDS_BETWEEN_LOOKS)
                ended = ended or row is None
                if row is not None:
                    batch.append(row)
                    size += len(row.values[3])
        return batch, ended

    def _connected(self, base: sqlite3.Connection | None) -> sqlite3.Connection:
        """Return the connection, or a new one where the file is another by now."""
        now = self.path.stat()
        if base is not None and self._inode == (now.st_dev, now.st_ino):
            return base
        if base is not None:
            base.close()
        self._inode = (now.st_dev, now.st_ino)
        return _connect(self.path, self.log_bytes)

    def _commit(self, base: sqlite3.Connection, batch: list[_Waiting]) -> None:
        if batch:
            if _log_bytes(self.path) > self.log_bytes:  # a reader kept the log from being reused
                base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if _log_bytes(self.path) > self.log_bytes:
                    raise sqlite3.OperationalError("a reader holds up the write-ahead log")
            base.execute("BEGIN IMMEDIATE")
            base.executemany(INSERT, [row.values for row in batch])
            base.execute("COMMIT")
            self.kept += len(batch)
            self._done(batch)
        self.behind = False

    def _done(self, batch: list[_Waiting], lost: str = "", why: str = "") -> None:
        """Release those who wait for the rows: they are written, or `lost` for a reason."""
        with self._lock:
            self._waiting_bytes -= sum(len(row.values[3]) for row in batch)
        for row in batch:
            if lost:
                self._lose(row.done, lost, why)
            else:
                row.done.set_result(True)

    def _failed(
        self,
        error: Exception,
        batch: list[_Waiting],
        base: sqlite3.Connection | None,
        *,
        last: bool,
    ) -> list[_Waiting]:
        """Return the rows to try again, which a lock held up; others are lost."""
        self.behind = True
        with suppress(sqlite3.Error):
            if base is not None and base.in_transaction:
                base.execute("ROLLBACK")
        reason = REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, UNWRITABLE)
        if reason == LOCKED and not last:
            time.sleep(SECONDS_BETWEEN_TRIES)
            return batch
        self._done(batch, reason, str(error))
        return []

    def _make_room(self, base: sqlite3.Connection, *, idle: bool) -> None:
        """Remove rows of age, then the oldest while the file is too large; shrink the files.

        Where there is time, empty the log, in which removed rows may still stand.
        """
        before = time.time() - self.keep_days * DAY
        while self._remove(base, AGED, (before, BATCH)) == BATCH:
            pass
        if (size := _bytes(base)) > self.base_bytes:
            few = max(1, _rows(base) * (self.log_bytes // 4) // size)
            while _bytes(base) > (1 - FREED) * self.base_bytes:
                if not self._remove(base, OLDEST, (min(few, BATCH),)):
                    break
        if _log_bytes(self.path) > (0 if idle else self.log_bytes):
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _remove(self, base: sqlite3.Connection, statement: str, values: tuple[float, ...]) -> int:
        count = base.execute(statement, values).rowcount
        if count:
            base.execute("PRAGMA incremental_vacuum").fetchall()
            self.removed += count
        return count


def _create(folder: Path, path: Path, log_bytes: int) -> None:
    """Make the folder and the file, for their owner alone, or check those that are there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() and any(folder.iterdir()):
            step = "Name a folder of its own, which may be new."
            raise ConfigError("the folder holds other files.", where=str(folder), next_step=step)
        folder.chmod(0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)
        empty = not os.fstat(descriptor).st_size
        os.close(descriptor)
        if not empty and CaptureFile.find(path) is None:
            step = "Move it away, or name another folder."
            raise DataError.at("it is not a file of kept answers.", path=path, next_step=step)
        with closing(_connect(path, log_bytes, check=False)) as base:
            if not empty:
                check_version(base, path)
                _check_whole(base, path)
            base.executescript(TABLES)
            base.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the header tells what the file is
    except (sqlite3.Error, OSError) as error:
        step = "Free the disk, or name another folder."
        raise DataError.at(f"cannot be written: {error}.", path=path, next_step=step) from error


def _check_whole(base: sqlite3.Connection, path: Path) -> None:
    found = base.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        step = "Copy it from a backup, or move it away; sqlite3 FILE .recover saves what it can."
        raise DataError.at("the file is damaged.", path=path, next_step=step)


def _connect(path: Path, log_bytes: int, *, check: bool = True) -> sqlite3.Connection:
    base = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=SECONDS_LOCKED,
        isolation_level=None,
        check_same_thread=False,
    )
    page = base.execute("PRAGMA page_size").fetchone()[0] if check else 4096
    for setting in (
        "secure_delete = ON",
        "synchronous = NORMAL",
        f"wal_autocheckpoint = {max(1, log_bytes // 2 // page)}",
        f"journal_size_limit = {log_bytes}",
    ):
        base.execute(f"PRAGMA {setting}")
    return base


def _bytes(base: sqlite3.Connection) -> int:
    pages = base.execute("PRAGMA page_count").fetchone()[0]
    return int(pages * base.execute("PRAGMA page_size").fetchone()[0])


def _rows(base: sqlite3.Connection) -> int:
    return int(base.execute("SELECT count(*) FROM answers").fetchone()[0])


def _log_bytes(path: Path) -> int:
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0


def _past(ends: float | None) -> bool:
    return ends is not None and time.monotonic() > ends
