"""A served run's calibration, read again when its file changes.

So `offapi calibrate`, and a promise that `offapi drift` withdraws, hold without a restart. Left
out: making it (`offapi.calibrate`).
"""

from __future__ import annotations

import os
from dataclasses import replace

from offapi.confidence import promise
from offapi.constrain import Level
from offapi.errors import ConfigError, DataError
from offapi.predict.predict_documents import Asking
from offapi.predict.predictor import AskedHow, Predictor

Stamp = tuple[int, int, int]


class WatchedCalibration:
    """How a predictor's documents are asked now, at `level` or as the run was calibrated."""

    def __init__(self, predictor: Predictor, level: Level | None = None) -> None:
        self._predictor, self._level = predictor, level
        self._seen = self._stamp()
        self._asked, self._asking = self._read()

    def now(self) -> tuple[AskedHow, Asking]:
        """Return how documents are asked. A file that cannot be read gives no confidence."""
        stamp = self._stamp()
        if stamp != self._seen:
            try:
                self._asked, self._asking = self._read()
            except (ConfigError, DataError):
                why = "The calibration cannot be read."
                self._asked = AskedHow(self._asked.level, None, why)
                self._asking = replace(self._asking, promise=None)
            self._seen = stamp
        return self._asked, self._asking

    def _read(self) -> tuple[AskedHow, Asking]:
        asked = self._predictor.asked(self._level)
        return asked, self._predictor.asking(asked)

    def _stamp(self) -> Stamp | None:
        """Return what changes when the file does; None without a file."""
        run = self._predictor.answering.run
        try:
            now = os.stat(run.path / promise.FILE) if run else None
        except OSError:
            return None
        return None if now is None else (now.st_mtime_ns, now.st_size, now.st_ino)
