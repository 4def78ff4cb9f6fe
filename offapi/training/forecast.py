"""Forecast of time and memory, from a short measurement of the loaded model.

Left out: the sentences (`forecast_text`), electricity and money (`offapi cost`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from offapi.activation_memory import FreeMemory, activation_bytes, recomputed_bytes
from offapi.backend import Backend, resolve_dtype
from offapi.episodes import Episode, Segment
from offapi.model_spec import Limits, ModelSpec
from offapi.training import whole_model
from offapi.training.schedule import Schedule

# times of one token in units of a scored token
TRAIN_PER_SCORE = 3.2  # forward, backward, and LoRA's share
DECODE_PER_SCORE = 3.5  # in a batch of many rows


@dataclass(frozen=True)
class Speed:
    """Seconds per token, measured by scoring a short row."""

    score: float

    @property
    def train(self) -> float:
        """Seconds per training token."""
        return self.score * TRAIN_PER_SCORE

    @property
    def decode(self) -> float:
        """Seconds per decoded token in a full batch."""
        return self.score * DECODE_PER_SCORE


def measure(backend: Backend, tokens: int = 256) -> Speed:
    """Score a row of `tokens` twice and time the second."""
    row = tuple(3 + i % 97 for i in range(tokens))
    episode = Episode("speed", (Segment(row[:-1], sampled=False), Segment(row[-1:], sampled=True)))
    backend.score([episode])
    started = time.perf_counter()
    backend.score([episode])
    return Speed((time.perf_counter() - started) / tokens)


@dataclass(frozen=True)
class Machine:
    """A machine with a model loaded: its speed, and its used and total bytes of memory."""

    backend: str
    speed: Speed
    used: float
    total: float
    micro_batch: int = Limits().micro_batch  # tokens

    @classmethod
    def of(cls, backend: Backend) -> Machine:
        """Measure the machine of a loaded backend."""
        speed, memory = measure(backend), backend.memory()
        return cls(backend.name, speed, memory.used, memory.total, backend.limits.micro_batch)


@dataclass(frozen=True)
class Work:
    """What a piece of work takes: seconds, and bytes at its peak."""

    seconds: float
    bytes: float
    recomputed: bool = False  # whether its longest micro-batch computes layers again


@dataclass(frozen=True)
class Rounds:
    """The work of a reinforcement run: prompt lengths in tokens, answers and updates."""

    prompts: Sequence[int]
    heldout: Sequence[int]
    answer: int  # tokens of the longest completion
    group: int  # completions of a prompt
    updates: int  # from one batch
    eval_every: int  # steps between evaluations on the held-out prompts

    def looks(self, steps: int) -> int:
        """Return the number of evaluations on the held-out prompts in `steps` steps."""
        return 1 + -(-steps // self.eval_every)


def reading(speed: Speed, prompts: Sequence[int], answer: int) -> float:
    """Return the seconds to answer prompts of these lengths, with `answer` tokens each at most."""
    return speed.score * sum(prompts) + speed.decode * answer * len(prompts)


def training(
    machine: Machine, rows: Sequence[int], schedule: Schedule, spec: ModelSpec, first: int = 0
) -> Work:
    """Return the work of the steps from `first` on, over rows of these lengths in tokens."""
    left, longest = (schedule.steps - first) / schedule.per_epoch, max(rows)
    micro = min(max(machine.micro_batch, longest), schedule.batch_size * longest)
    return Work(machine.speed.train * sum(rows) * left, *_peak(machine, spec, micro))


def reinforcement(machine: Machine, rounds: Rounds, schedule: Schedule, spec: ModelSpec) -> Work:
    """Return the most work a run can take, with every completion at its longest."""
    speed, drawn = machine.speed, rounds.group * rounds.answer
    asked = sum(rounds.prompts) / len(rounds.prompts)
    prompt_seconds = (
        speed.score * (2 * asked + drawn)
        + speed.decode * drawn
        + speed.train * (asked + drawn) * rounds.updates
    )
    look = reading(speed, rounds.heldout, rounds.answer)
    longest = max(rounds.prompts)
    micro = min(
        max(machine.micro_batch, longest + rounds.answer), schedule.batch_size * (longest + drawn)
    )
    step_seconds = schedule.batch_size * prompt_seconds
    seconds = schedule.steps * step_seconds + rounds.looks(schedule.steps) * look
    return Work(seconds, *_peak(machine, spec, micro, reference=True))


def _peak(
    machine: Machine, spec: ModelSpec, tokens: int, *, reference: bool = False
) -> tuple[float, bool]:
    """Return the bytes in use during a micro-batch, and whether its layers are recomputed."""
    dtype = resolve_dtype(spec.dtype, machine.backend, spec.device)
    if spec.full:
        dtype, weights = "float32", whole_model.count_weights(spec.path)
        kept = whole_model.KEPT + (whole_model.REFERENCE if reference else 0)
        machine = replace(machine, used=machine.used + kept * weights)
    token = activation_bytes(spec.path, machine.backend, dtype)
    free = FreeMemory(spec.checkpointing, token, machine.total - machine.used)
    again = free.recomputes(tokens)
    if again:
        token = recomputed_bytes(spec.path, machine.backend, dtype)
    return machine.used + token * tokens, again
