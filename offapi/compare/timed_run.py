"""The seconds of work that a run's result is made of,
through kills: what was lost and done again counts once.

Each checkpoint notes the seconds that led to it; who goes on from it counts on from there, and from
the moment it was read. Left out: loading the model once more, which is no part of the result.
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
    """Seconds done before `since`, by the clock."""

    before: float = 0.0
    since: float = 0.0

    def begin(self, before: float) -> None:
        """Count on from `before` seconds."""
        self.before, self.since = before, perf_counter()

    @property
    def seconds(self) -> float:
        """All of them by now."""
        return self.before + perf_counter() - self.since


@dataclass(frozen=True)
class Timed(Run):
    """A run that counts its work. `begin` before the recipe runs."""

    work: WorkTimer = field(default_factory=WorkTimer)

    def begin(self) -> None:
        """Of an attempt that was killed before its first
        checkpoint, the labels alone are still of use.
        """
        path = self.path / LABELS
        self.work.begin(
            sum(one.seconds for one in labels_file.read_labels(path).labels)
            if path.is_file()
            else 0.0
        )

    def latest(self) -> Checkpoint | None:
        """The checkpoint to go on from: what was done after it is lost."""
        found = super().latest()
        if found is not None:
            self.work.begin(self._led_to(found.step))
        return found

    def checkpoint(
        self, step: int, files: Mapping[str, bytes], meta: Mapping[str, Any]
    ) -> Checkpoint:
        """Note the work first: a checkpoint that is there has its line."""
        self.log(step, {"seconds": self.work.seconds}, SECONDS)
        return super().checkpoint(step, files, meta)

    def _led_to(self, step: int) -> float:
        """The last line of `step` counts: earlier ones are
        of checkpoints that were damaged and made again.
        """
        noted = {line["step"]: line["seconds"] for line in _lines(self.path / SECONDS)}
        return noted.get(step, 0.0)


def _lines(path: Path) -> list[dict[str, float]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
