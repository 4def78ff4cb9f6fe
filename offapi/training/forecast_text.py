"""What a piece of work will take, said in a sentence before it starts.

Left out: the arithmetic (`forecast`).
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.backend import Backend, ModelSpec
from offapi.episodes import Episode
from offapi.text.display import duration
from offapi.training import forecast
from offapi.training.forecast import Machine, Rounds
from offapi.training.schedule import Schedule


def training(
    backend: Backend, episodes: Sequence[Episode], schedule: Schedule, first: int, spec: ModelSpec
) -> str:
    """Steps, tokens, expected time and memory of the training still to do."""
    machine, rows = Machine.of(backend), [len(episode.tokens) for episode in episodes]
    work = forecast.training(machine, rows, schedule, spec, first)
    learned = sum(sum(episode.mask) for episode in episodes)
    more = f" More than there is: lower limits.train_tokens (the longest row has {max(rows)})."
    return (
        f"Training on {len(rows)} rows, {sum(rows):,} tokens ({learned:,} of them learned), in"
        f" {schedule.steps - first} steps of {schedule.batch_size} rows: about"
        f" {duration(work.seconds)}, {work.bytes / 2**30:.1f} of {machine.total / 2**30:.0f}"
        f" GiB.{more if work.bytes > machine.total else ''}"
    )


def reinforcement(backend: Backend, rounds: Rounds, schedule: Schedule, spec: ModelSpec) -> str:
    """Steps, completions, and the most they take."""
    machine = Machine.of(backend)
    work = forecast.reinforcement(machine, rounds, schedule, spec)
    return (
        f"{schedule.steps} steps of {schedule.batch_size} prompts with {rounds.group} completions"
        f" each, {rounds.looks(schedule.steps)} looks at {len(rounds.heldout)} held-out documents:"
        f" at most about {duration(work.seconds)}, {work.bytes / 2**30:.1f} of"
        f" {machine.total / 2**30:.0f} GiB."
    )
