"""The seconds of work behind a run's result: work that was lost and repeated counts once.

Each checkpoint records the seconds that led to it; a resumed run continues that count from the
moment it reads the checkpoint. Left out: loading the model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from offapi.teachers import labels_file
from offapi.training.checkpoints import Checkpoint
from offapi.training.run import Run

SECONDS, LABELS = "seconds.jsonl", "labels.jsonl"


@dataclass
class WorkTimer:
    """A clock that starts at `since` with the seconds done `before`."""

    before: float = 0.0
    since: float = 0.0

    def begin(self, before: float) -> None:
        """Count on from `before` seconds."""
        self.before, self.since = before, perf_counter()

    @property
    def seconds(self) -> float:
        """All seconds of work until now."""
        return self.before + perf_counter() - self.since


@dataclass(frozen=True)
class Timed(Run):
    """A run that times its work. Call `begin` before the recipe runs."""

    work: WorkTimer = field(default_factory=WorkTimer)

    def begin(self) -> None:
        """Start the clock.

        If an attempt was killed before its first checkpoint, only its labels still count.
        """
        path = self.path / LABELS
        labels = labels_file.read_labels(path).labels if path.is_file() else []
        self.work.begin(sum(label.seconds for label in labels))

    def latest(self) -> Checkpoint | None:
        """Return the checkpoint to resume from, and set the clock back to it."""
        checkpoint = super().latest()
        if checkpoint is not None:
            self.work.begin(self._seconds_until(checkpoint.step))
        return checkpoint

    def checkpoint(
        self, step: int, files: Mapping[str, bytes], meta: Mapping[str, Any]
    ) -> Checkpoint:
        """Record the seconds, then write the checkpoint: every checkpoint has its line."""
        self.log(step, {"seconds": self.work.seconds}, SECONDS)
        return super().checkpoint(step, files, meta)

    def _seconds_until(self, step: int) -> float:
        # The last line of a step counts: earlier ones belong to damaged checkpoints.
        seconds = {line["step"]: line["seconds"] for line in _lines(self.path / SECONDS)}
        return seconds.get(step, 0.0)


def _lines(path: Path) -> list[dict[str, float]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
