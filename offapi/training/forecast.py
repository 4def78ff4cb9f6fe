"""Forecast of tokens, time and memory, from a short measurement of the loaded model.

Left out: the sentences (`forecast_text`), electricity and money (`offapi cost`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from offapi.activation_memory import TRAINED, Account, FreeMemory
from offapi.backend import Backend, resolve_dtype
from offapi.episodes import Episode, Segment, common_prefix_length
from offapi.model_spec import DType, Limits, ModelSpec
from offapi.training import whole_model
from offapi.training.schedule import Schedule

# times of one token in units of a scored token
TRAIN_PER_SCORE = 2.6  # forward, backward, and LoRA's share; 2.5 and 2.6 by CPU time, SmolLM2-135M
AGAIN = 1.5  # the time of training whose layers are computed again, in that of other training
DECODE_PER_SCORE = 3.5  # in a batch of many rows


@dataclass(frozen=True)
class Speed:
    """Seconds per token, of all ranks together, measured by scoring a short row on each."""

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
    """Score a row of `tokens` on each rank twice and time the second."""
    episodes = []
    for rank in range(backend.ranks):
        row = tuple(3 + (i + rank) % 97 for i in range(tokens))
        parts = Segment(row[:-1], sampled=False), Segment(row[-1:], sampled=True)
        episodes.append(Episode(f"speed {rank}", parts))
    backend.score(episodes)
    started = time.perf_counter()
    backend.score(episodes)
    return Speed((time.perf_counter() - started) / (tokens * backend.ranks))


@dataclass(frozen=True)
class Machine:
    """A machine with a model loaded: its speed, and its used and total bytes of memory.

    `free` is the memory by which the backend decides whether layers are recomputed, `trained` how
    many numbers it trains, unless that is every weight, and `packed` whether rows share a prefix.
    """

    backend: str
    speed: Speed
    used: float
    total: float
    free: float
    trained: int = 0
    limits: Limits = Limits()
    packed: bool = True

    @classmethod
    def of(cls, backend: Backend) -> Machine:
        """Measure the machine of a loaded backend."""
        speed, memory = measure(backend), backend.memory()
        trained = sum(array.size for array in backend.state().adapter.values())
        found = memory.used, memory.total, memory.free
        packed = backend.implementation == "packed"
        return cls(backend.name, speed, *found, trained, backend.limits, packed)


@dataclass(frozen=True)
class Work:
    """What a piece of work takes: seconds, bytes at its peak, and tokens."""

    seconds: float
    bytes: float
    recomputed: bool  # whether its longest micro-batch computes layers again
    trained: int  # tokens that are computed in training, a shared prompt once
    decoded: int = 0  # tokens that are sampled


@dataclass(frozen=True)
class Peak:
    """The bytes of a machine at the peak of a run's phases, from what is in use in all of them."""

    base: float
    account: Account
    free: FreeMemory
    limits: Limits

    @classmethod
    def of(cls, machine: Machine, spec: ModelSpec, *, reference: bool = False) -> Peak:
        """Return the peaks of training `spec`, which is compared with a `reference` or not."""
        asked: DType = "float32" if spec.full and spec.dtype == "auto" else spec.dtype
        dtype = resolve_dtype(asked, machine.backend, spec.device)
        account = Account.of(spec.path, machine.backend, dtype)
        trained = whole_model.count_weights(spec.path) if spec.full else machine.trained
        free = FreeMemory(spec.checkpointing, account.token, machine.free, trained)
        loaded = whole_model.REFERENCE * trained if spec.full and reference else 0
        return cls(machine.used + TRAINED * trained + loaded, account, free, machine.limits)

    def training(self, tokens: int, longest: int) -> tuple[float, bool]:
        """Return the peak of a micro-batch, and whether its layers are recomputed."""
        again = self.free.recomputes(tokens)
        taken = self.account.training(tokens, longest, self.limits.logit_rows, again)
        return self.base + taken, again

    def sampling(self, rows: int, own: int, shared: int = 0) -> float:
        """Return the peak of `rows` rows of `own` tokens each, as many at once as is allowed."""
        rows = min(rows, self.limits.rollout_rows)
        return self.base + self.account.sampling(rows, own, shared)


@dataclass(frozen=True)
class Rounds:
    """The work of a reinforcement run: prompt lengths in tokens, answers and updates."""

    prompts: Sequence[int]
    heldout: Sequence[int]
    answer: int  # tokens of the longest completion
    group: int  # completions of a prompt
    updates: int  # from one batch
    eval_every: int  # steps between evaluations on the held-out prompts
    shared: int = 0  # first tokens that all prompts share

    def looks(self, steps: int) -> int:
        """Return the number of evaluations on the held-out prompts in `steps` steps."""
        return 1 + -(-steps // self.eval_every)


def shared_tokens(episodes: Sequence[Episode]) -> int:
    """Return how many tokens all rows begin with, before any that is learned."""
    if len(episodes) < 2:
        return 0
    starts = [episode.tokens[: episode.mask.index(True)] for episode in episodes]
    return common_prefix_length(starts)


def reading(speed: Speed, prompts: Sequence[int], answer: int) -> float:
    """Return the seconds to answer prompts of these lengths, with `answer` tokens each at most."""
    return speed.score * sum(prompts) + speed.decode * answer * len(prompts)


def training(
    machine: Machine,
    rows: Sequence[int],
    schedule: Schedule,
    spec: ModelSpec,
    first: int = 0,
    shared: int = 0,
) -> Work:
    """Return the work of the steps from `first` on, over rows of these lengths in tokens.

    A micro-batch computes the first `shared` tokens, which are the same in all rows, once.
    """
    shared = shared if machine.packed else 0
    left = (schedule.steps - first) / schedule.per_epoch
    longest, own = max(rows), [row - shared for row in sorted(rows)]
    batch = shared + sum(own[-schedule.batch_size :])
    micro = min(max(machine.limits.micro_batch, longest), batch)
    peak, again = Peak.of(machine, spec).training(micro, longest)
    prefixes = schedule.per_epoch * -(-batch // micro)
    tokens = (sum(own) + shared * prefixes) * left
    seconds = machine.speed.train * tokens * (AGAIN if again else 1)
    return Work(seconds, peak, again, round(tokens))


def reinforcement(machine: Machine, rounds: Rounds, schedule: Schedule, spec: ModelSpec) -> Work:
    """Return the most work a run can take, with every completion at its longest."""
    speed, drawn = machine.speed, rounds.group * rounds.answer
    asked = sum(rounds.prompts) / len(rounds.prompts)
    learned = drawn + asked * (1 if machine.packed else rounds.group)
    peak, again = _reinforcement_peak(machine, rounds, schedule, spec)
    prompt_seconds = (
        speed.score * (asked + learned)
        + speed.decode * drawn
        + speed.train * learned * rounds.updates * (AGAIN if again else 1)
    )
    looks = rounds.looks(schedule.steps)
    groups = schedule.steps * schedule.batch_size
    seconds = groups * prompt_seconds + looks * reading(speed, rounds.heldout, rounds.answer)
    return Work(
        seconds,
        peak,
        again,
        trained=round(groups * learned * rounds.updates),
        decoded=groups * drawn + looks * len(rounds.heldout) * rounds.answer,
    )


def _reinforcement_peak(
    machine: Machine, rounds: Rounds, schedule: Schedule, spec: ModelSpec
) -> tuple[float, bool]:
    """Return the bytes at the peak of a step, and whether layers are recomputed in it."""
    longest, drawn = max(rounds.prompts), rounds.group * rounds.answer
    batch = sum(sorted(rounds.prompts)[-schedule.batch_size :]) + schedule.batch_size * drawn
    if machine.backend == "mlx" and rounds.group * (longest - rounds.shared) > longest:
        batch = longest + drawn  # its micro-batches have one prefix each, and are padded little
    micro = min(max(machine.limits.micro_batch, longest + rounds.answer), batch)
    peak = Peak.of(machine, spec, reference=True)
    learning, again = peak.training(micro, longest + rounds.answer)
    rows = max(schedule.batch_size * rounds.group, len(rounds.heldout))
    own = max(*rounds.prompts, *rounds.heldout) - rounds.shared + rounds.answer
    return max(learning, peak.sampling(rows, own, rounds.shared)), again
