"""The review queue: documents that a person should answer, one JSON object a line.

    {"id", "document", "answer", "fields", "reason", "time", "model"}

A row to which a person adds "gold" is a document with a known answer, as `offapi train` and
`offapi calibrate` read it. The file may be edited while it is appended to. Left out: the review.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from offapi.confidence.promise import now
from offapi.data.documents import Document
from offapi.errors import DataError, RunError
from offapi.files import jsonl
from offapi.files.append import append_or_refuse, refused
from offapi.files.lock import open_locked
from offapi.predict.answers_log import text_hash
from offapi.predict.prediction import DocumentAnswer

TRIES, SECONDS_BETWEEN_TRIES = 40, 0.05  # while another process appends


class ReviewQueue:
    """The queue in the file `path` (mode 0600), which holds no document twice.

    Raise DataError where the file holds anything but documents, RunError where it cannot be
    written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.added = 0
        self._lock = threading.Lock()
        self._known = _hashes(path)
        self._append(b"")

    def add(self, document: str, answer: DocumentAnswer, reason: str, model: str) -> bool:
        """Append a document, unless it is there; return whether it was. The disk has it then.

        Raise RunError where the disk refuses.
        """
        id = text_hash(Document("", document))
        with self._lock:
            if id in self._known:
                return False
            self._append(orjson.dumps(_row(id, document, answer, reason, model)) + b"\n")
            self._known.add(id)
            self.added += 1
        return True

    def _append(self, line: bytes) -> None:
        """Append to the file that has the name now: an editor may have replaced it."""
        file = self._open()
        try:
            size = os.fstat(file).st_size
            torn = bool(line) and size > 0 and os.pread(file, 1, size - 1) != b"\n"
            append_or_refuse(file, b"\n" * torn + line, self.path, sync=True)
        finally:
            os.close(file)

    def _open(self) -> int:
        for left in reversed(range(TRIES)):
            try:
                return open_locked(self.path, os.O_APPEND)
            except OSError as error:
                raise refused(error, self.path) from error
            except RunError:
                if not left:
                    raise
            time.sleep(SECONDS_BETWEEN_TRIES)
        raise AssertionError("a try returns or raises")


def _row(id: str, document: str, answer: DocumentAnswer, reason: str, model: str) -> dict[str, Any]:
    known = answer.as_row()
    return {
        "id": id,
        "document": document,
        "answer": known["answer"],
        "fields": known["fields"],
        "reason": reason,
        "time": now(),
        "model": model,
    }


def _hashes(path: Path) -> set[str]:
    """Return the hashes of the documents in a queue. Raise DataError for another file."""
    if not path.exists() or not path.stat().st_size:
        return set()
    step = "Name another file, or one that `--ask` wrote."
    try:
        rows = jsonl.read(path)
        texts = [row.required("document", str) for row in rows]
    except DataError as error:
        raise DataError(error.what, where=error.where, next_step=step) from None
    return {text_hash(Document("", text)) for text in texts}
