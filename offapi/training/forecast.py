"""What a piece of work will take, in numbers, from a short measurement of the loaded model.

Left out: the words for them (`forecast_text`), electricity and money (`offapi cost` knows those).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from offapi.activation_memory import activation_bytes
from offapi.backend import Backend, Limits, ModelSpec
from offapi.episodes import Episode, Segment
from offapi.training.schedule import Schedule

TRAIN_PER_SCORE = (
    3.2  # time of a training token in scored tokens: forward, backward, and LoRA's share
)
DECODE_PER_SCORE = 3.5  # time of a decoded token, many rows side by side, in scored tokens


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


@dataclass(frozen=True)
class Machine:
    """A machine with a model loaded: how fast it is, the bytes it holds and has."""

    backend: str
    speed: Speed
    used: float
    total: float
    micro_batch: int = Limits().micro_batch  # tokens

    @classmethod
    def of(cls, backend: Backend) -> Machine:
        """The machine of a loaded backend, measured."""
        speed, memory = measure(backend), backend.memory()
        return cls(backend.name, speed, memory.used, memory.total, backend.limits.micro_batch)


@dataclass(frozen=True)
class Work:
    """What a piece of work takes: its time, and all that is held at its peak."""

    seconds: float
    bytes: float


@dataclass(frozen=True)
class Rounds:
    """What a reinforcement asks: prompts and held-out ones
    by their lengths in tokens, how often, how many updates.
    """

    prompts: Sequence[int]
    heldout: Sequence[int]
    answer: int  # tokens of the longest completion
    group: int  # completions of a prompt
    updates: int  # from one batch
    eval_every: int  # steps between looks at the held-out prompts

    def looks(self, steps: int) -> int:
        """At the held-out prompts, in so many steps."""
        return 1 + -(-steps // self.eval_every)


def reading(speed: Speed, prompts: Sequence[int], answer: int) -> float:
    """Seconds to answer prompts of those lengths, each with `answer` tokens at most."""
    return speed.score * sum(prompts) + speed.decode * answer * len(prompts)


def training(
    machine: Machine, rows: Sequence[int], schedule: Schedule, spec: ModelSpec, first: int = 0
) -> Work:
    """The steps from `first` on over rows of those lengths in tokens."""
    left, longest = (schedule.steps - first) / schedule.per_epoch, max(rows)
    micro = min(max(machine.micro_batch, longest), schedule.batch_size * longest)
    return Work(machine.speed.train * sum(rows) * left, _peak(machine, spec, micro))


def reinforcement(machine: Machine, rounds: Rounds, schedule: Schedule, spec: ModelSpec) -> Work:
    """The most it takes, every completion as long as it may get."""
    speed, drawn = machine.speed, rounds.group * rounds.answer
    asked = sum(rounds.prompts) / len(rounds.prompts)
    one = (
        speed.score * (2 * asked + drawn)
        + speed.decode * drawn
        + speed.train * (asked + drawn) * rounds.updates
    )
    look = reading(speed, rounds.heldout, rounds.answer)
    longest = max(rounds.prompts)
    micro = min(
        max(machine.micro_batch, longest + rounds.answer), schedule.batch_size * (longest + drawn)
    )
    seconds = schedule.steps * schedule.batch_size * one + rounds.looks(schedule.steps) * look
    return Work(seconds, _peak(machine, spec, micro))


def _peak(machine: Machine, spec: ModelSpec, tokens: int) -> float:
    """Bytes with a micro-batch of so many tokens under way."""
    return machine.used + activation_bytes(spec.path, machine.backend, spec.dtype) * tokens
