"""What a piece of work will cost, said before it starts, from a short measurement of the loaded model.

Left out: electricity and money (`offapi cost` will know those).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from offapi.backend import Backend, DType, ModelSpec
from offapi.episodes import Episode, Segment
from offapi.schedule import Schedule

TRAIN_PER_SCORE = 3.2  # time of a training token in scored tokens: forward, backward, and LoRA's share
DECODE_PER_SCORE = 3.5  # time of a decoded token, many rows side by side, in scored tokens
# Numbers held at the peak of a backward pass, a token and layer, in hidden and in inner sizes: the growth
# of resident memory on three shapes of model (hidden 512 to 960, inner 1536 to 4096), within 5%.
KEPT = {"torch": (10.0, 9.3), "mlx": (8.2, 5.5)}


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


def activation_bytes(folder: Path, backend_name: str, dtype: DType) -> float:
    """What a token of a micro-batch holds at the peak of its backward pass through the model in `folder`."""
    config = orjson.loads((folder / "config.json").read_bytes())
    hidden, inner = KEPT.get(backend_name, KEPT["torch"])
    numbers = hidden * config["hidden_size"] + inner * config["intermediate_size"]
    return float(numbers * config["num_hidden_layers"] * (4 if dtype == "float32" else 2))


def training(backend: Backend, episodes: Sequence[Episode], schedule: Schedule, first: int, spec: ModelSpec) -> str:
    """One sentence: steps, tokens, expected time and memory of the training still to do."""
    tokens = sum(len(episode.tokens) for episode in episodes)
    learned = sum(sum(episode.mask) for episode in episodes)
    left = (schedule.steps - first) / schedule.per_epoch
    seconds = measure(backend).train * tokens * left
    longest = max(len(episode.tokens) for episode in episodes)
    micro = min(max(spec.limits.train_tokens, longest), schedule.batch_size * longest)
    memory = backend.memory()
    peak = memory.used + activation_bytes(spec.path, backend.name, spec.dtype) * micro
    more = f" More than there is: lower limits.train_tokens (the longest row has {longest})."
    return (
        f"Training on {len(episodes)} rows, {tokens:,} tokens ({learned:,} of them learned), in"
        f" {schedule.steps - first} steps of {schedule.batch_size} rows: about {duration(seconds)},"
        f" {peak / 2**30:.1f} of {memory.total / 2**30:.0f} GiB.{more if peak > memory.total else ''}"
    )


def reinforcement(
    backend: Backend,
    spec: ModelSpec,
    schedule: Schedule,
    prompts: Sequence[int],
    *,
    answer: int,
    group: int,
    updates: int,
    looks: int,
    heldout: Sequence[int],
) -> str:
    """One sentence: steps, completions, and the most they take, every one of them as long as it may get.

    `prompts` and `heldout` are lengths in tokens, `answer` the longest completion, `group` the
    completions of a prompt, `updates` from one batch, `looks` at the held-out documents.
    """
    speed, drawn = measure(backend), group * answer
    asked = sum(prompts) / len(prompts)
    one = speed.score * (2 * asked + drawn) + speed.decode * drawn + speed.train * (asked + drawn) * updates
    look = speed.score * sum(heldout) + speed.decode * answer * len(heldout)
    seconds = schedule.steps * schedule.batch_size * one + looks * look
    micro = min(max(spec.limits.train_tokens, max(prompts) + answer), schedule.batch_size * (max(prompts) + drawn))
    memory = backend.memory()
    peak = memory.used + activation_bytes(spec.path, backend.name, spec.dtype) * micro
    return (
        f"{schedule.steps} steps of {schedule.batch_size} prompts with {group} completions each, {looks} looks at"
        f" {len(heldout)} held-out documents: at most about {duration(seconds)}, {peak / 2**30:.1f} of"
        f" {memory.total / 2**30:.0f} GiB."
    )


def duration(seconds: float) -> str:
    """`40 s`, `7 min` or `2.5 h`."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
