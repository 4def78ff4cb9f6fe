"""A resumable output file: written batch by batch, renamed into place when complete.

    OUT.part  the batches so far      OUT.part.json  how much of it counts, and where to resume

Left out: what a batch is. The caller's `state` says where to resume.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from offapi.errors import RunError
from offapi.files import atomic
from offapi.files.append import append_or_refuse, refused
from offapi.files.lock import open_locked

SECONDS_BETWEEN_JOURNALS = 1.0


class Stage:
    """The file that will become `out`, open for appending by one process at a time.

    `key` is what the content depends on (hashes, options): an unfinished file with the same key is
    resumed, any other is started anew. Raise RunError if another process writes it or the disk
    refuses.
    """

    def __init__(self, out: Path, key: Mapping[str, Any], start: Mapping[str, Any]) -> None:
        self.out, self.key = out, orjson.loads(orjson.dumps(dict(key)))
        self.part = out.with_name(f"{out.name}.part")
        self.journal = out.with_name(f"{out.name}.part.json")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_locked(self.part)
        except OSError as error:
            raise RunError(
                f"cannot be written: {error.strerror}.",
                where=str(out),
                next_step="Name another file.",
            ) from None
        journal = self._read_journal()
        self.resumed = journal is not None
        if journal is None:
            self.journal.unlink(missing_ok=True)  # it counts bytes of other content
        # The bytes that count and the state after them: one value, so that Ctrl-C never parts them.
        self._good: tuple[int, dict[str, Any]] = (
            (0, dict(start)) if journal is None else (journal["size"], journal["state"])
        )
        self._journaled = time.monotonic()
        os.ftruncate(self._file, self.size)
        os.lseek(self._file, self.size, os.SEEK_SET)

    @property
    def size(self) -> int:
        """The number of bytes of the unfinished file that count."""
        return self._good[0]

    @property
    def state(self) -> dict[str, Any]:
        """Where to resume after those bytes."""
        return self._good[1]

    def append(self, data: bytes, state: Mapping[str, Any]) -> None:
        """Add a batch; `state` (JSON values) says where to resume after it."""
        append_or_refuse(self._file, data, self.part)
        self._good = (self.size + len(data), dict(state))
        if time.monotonic() - self._journaled >= SECONDS_BETWEEN_JOURNALS:
            try:
                self._note()
            except OSError as error:
                raise refused(error, self.part) from error

    def finish(self) -> None:
        """Rename the complete file to its name."""
        try:
            atomic.sync(self._file)
            os.replace(self.part, self.out)
        except OSError as error:
            raise refused(error, self.out) from error
        self.journal.unlink(missing_ok=True)
        atomic.sync_path(self.out.parent)

    def discard(self) -> None:
        """Delete the unfinished file and its journal."""
        self.journal.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if kind is not None and self.part.exists():
                self._leave()
        finally:
            os.close(self._file)

    def _leave(self) -> None:
        """Leave what can be resumed; delete all if nothing counts or no journal can be written."""
        if self.size:
            try:
                self._note()
            except (OSError, RunError):  # a disk that cannot sync may still hold it
                with suppress(OSError):
                    self.journal.write_bytes(self._journal_bytes())
        if not self.size or not self.journal.exists():
            self.discard()

    def _note(self) -> None:
        os.fsync(self._file)  # the bytes that the journal counts must be on disk
        atomic.write_file(self.journal, self._journal_bytes())
        self._journaled = time.monotonic()

    def _journal_bytes(self) -> bytes:
        return orjson.dumps({"key": self.key, "size": self.size, "state": self.state})

    def _read_journal(self) -> dict[str, Any] | None:
        """Return the journal of an unfinished file with the same key; None if there is none."""
        try:
            journal: dict[str, Any] = orjson.loads(self.journal.read_bytes())
            size = os.fstat(self._file).st_size
            fits = journal["key"] == self.key and 0 < journal["size"] <= size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return journal if fits else None
