"""The forecast of time and memory as a sentence, before the work starts.

Left out: the arithmetic (`forecast`).
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.backend import Backend
from offapi.episodes import Episode
from offapi.model_spec import ModelSpec
from offapi.text.display import duration, plural
from offapi.training import forecast
from offapi.training.forecast import Machine, Rounds, Work
from offapi.training.schedule import Schedule


def training(
    backend: Backend, episodes: Sequence[Episode], schedule: Schedule, first: int, spec: ModelSpec
) -> str:
    """Return the steps, tokens, expected time and memory of the training still to do."""
    machine, rows = Machine.of(backend), [len(episode.tokens) for episode in episodes]
    shared = forecast.shared_tokens(episodes)
    work = forecast.training(machine, rows, schedule, spec, first, shared)
    learned = sum(sum(episode.mask) for episode in episodes)
    sentence = (
        f"Training on {plural(len(rows), 'row')}, {plural(sum(rows), 'token')} ({learned:,} of"
        " them learned), in"
        f" {plural(schedule.steps - first, 'step')} of {plural(schedule.batch_size, 'row')}: about"
        f" {duration(work.seconds)}, {work.bytes / 2**30:.1f} of {machine.total / 2**30:.0f} GiB."
    )
    if work.bytes <= machine.total:
        return sentence + _again(work) + _slower(backend)
    longest = f"the longest row has {max(rows)}"
    too_much = f"This exceeds the memory: lower limits.train_tokens ({longest})."
    return f"{sentence} {too_much}{_slower(backend)}"


def reinforcement(backend: Backend, rounds: Rounds, schedule: Schedule, spec: ModelSpec) -> str:
    """Return the steps and completions, and the most time and memory they take."""
    machine = Machine.of(backend)
    work = forecast.reinforcement(machine, rounds, schedule, spec)
    return (
        f"{plural(schedule.steps, 'step')} of {plural(schedule.batch_size, 'prompt')} with"
        f" {plural(rounds.group, 'completion')} each,"
        f" {plural(rounds.looks(schedule.steps), 'evaluation')} on"
        f" {plural(len(rounds.heldout), 'held-out document')}: at most"
        f" {plural(work.trained, 'token')} to train on and {work.decoded:,} to write, about"
        f" {duration(work.seconds)}, {work.bytes / 2**30:.1f} of"
        f" {machine.total / 2**30:.0f} GiB.{_again(work)}{_slower(backend)}"
    )


def _again(work: Work) -> str:
    return " Layers are computed again in the backward pass, to save memory." * work.recomputed


def _slower(backend: Backend) -> str:
    """Return what to expect of a model that is computed by its library's own forward."""
    if backend.implementation != "library":
        return ""
    return " The model is computed by its library's own forward, row by row, which is slower."
