"""What a piece of work will cost, said before it starts, from a short measurement of the loaded model.

Left out: electricity and money (`offapi cost` will know those).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from offapi.backend import Backend, Episode, Limits, Segment
from offapi.schedule import Schedule

TRAIN_PER_SCORE = 3.2  # time of a training token in scored tokens: forward, backward, and LoRA's share
DECODE_PER_SCORE = 3.5  # time of a decoded token, many rows side by side, in scored tokens
ACTIVATION_BYTES = 2.2e6  # kept a token of a micro-batch for the backward pass: 135M weights, fp32


@dataclass(frozen=True)
class Speed:
    """Seconds a token, measured by scoring a short row."""

    score: float

    @property
    def train(self) -> float:
        """Seconds of a training token."""
        return self.score * TRAIN_PER_SCORE

    @property
    def decode(self) -> float:
        """Seconds of a decoded token in a full batch."""
        return self.score * DECODE_PER_SCORE


def measure(backend: Backend, tokens: int = 256) -> Speed:
    """Score a row of `tokens` twice and time the second."""
    row = tuple(3 + i % 97 for i in range(tokens))
    episode = Episode("speed", (Segment(row[:-1], sampled=False), Segment(row[-1:], sampled=True)))
    backend.score([episode])
    started = time.perf_counter()
    backend.score([episode])
    return Speed((time.perf_counter() - started) / tokens)


def training(backend: Backend, episodes: Sequence[Episode], schedule: Schedule, first: int, limits: Limits) -> str:
    """One sentence: steps, tokens, expected time and memory of the training still to do."""
    tokens = sum(len(episode.tokens) for episode in episodes)
    learned = sum(sum(episode.mask) for episode in episodes)
    left = (schedule.steps - first) / schedule.per_epoch
    seconds = measure(backend).train * tokens * left
    micro = min(max(limits.train_tokens, max(len(e.tokens) for e in episodes)), tokens)
    peak = backend.memory().used + ACTIVATION_BYTES * micro
    return (
        f"Training on {len(episodes)} rows, {tokens:,} tokens ({learned:,} of them learned), in"
        f" {schedule.steps - first} steps of {schedule.batch_size} rows: about {duration(seconds)},"
        f" {peak / 2**30:.1f} of {backend.memory().total / 2**30:.0f} GiB."
    )


def duration(seconds: float) -> str:
    """`40 s`, `7 min` or `2.5 h`."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
