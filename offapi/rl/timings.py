"""Seconds of each phase of a step.

They stay out of the metrics, which are the same bytes in two equal runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TIMINGS = "timings.jsonl"


@dataclass
class Clock:
    """Adds up the seconds and tokens of named phases until they are taken."""

    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds inside the context for `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def count(self, name: str, tokens: int) -> None:
        """Note that phase `name` processed `tokens` completion tokens."""
        self.tokens[name] = self.tokens.get(name, 0) + tokens

    def take(self) -> dict[str, float]:
        """Return seconds and tokens per second of each phase, and start the clock anew."""
        taken = {f"seconds/{name}": seconds for name, seconds in self.seconds.items()}
        rates = {
            f"tokens_per_second/{n}": t / self.seconds[n]
            for n, t in self.tokens.items()
            if self.seconds.get(n)
        }
        self.seconds, self.tokens = {}, {}
        return taken | rates
