"""A forecast of the arms' time and memory: upper bounds that assume answers of full length.

Left out: what is not known beforehand, such as answers that end early or fail the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from offapi.backend import Backend, ModelSpec, load
from offapi.chat.chat import Chat
from offapi.compare.arm import Arm
from offapi.compare.config import Keys, recipe_module
from offapi.data.rows import Row
from offapi.evaluation.predict import make_prompt
from offapi.models import store
from offapi.progress import Progress
from offapi.task import Task
from offapi.training import forecast
from offapi.training.forecast import Machine


@dataclass(frozen=True)
class Outlook:
    """The time and memory of an arm."""

    rows: int  # at most this many are learned from
    seconds: float
    memory: float  # bytes at the peak
    total: float  # bytes that the machine has


def measure_machine(keys: Keys, backend: str) -> Machine:
    """Load the student once and time it."""
    path = store.get(keys.model).path
    spec = ModelSpec(path, dtype=keys.dtype, device=keys.device, limits=keys.limits)
    student: Backend = load(backend, spec)
    try:
        return Machine.of(student)
    finally:
        student.close()


def forecast_arm(
    arm: Arm, task: Task, test: Sequence[Row], machine: Machine, progress: Progress
) -> Outlook:
    """Return the most that training the arm and scoring it on `test` take.

    Raise what its recipe's `prepare` raises.
    """
    config = arm.config
    if arm.start is not None and not config.adapter.exists():  # it is yet to be trained
        config = replace(config, adapter=None)
    inputs = recipe_module(arm.recipe).prepare(config, progress)
    chat, answer = inputs.chat, task.max_answer_tokens
    speed, spec = machine.speed, config.spec(inputs.model)
    seconds = forecast.reading(speed, [len(make_prompt(chat, task, row)) for row in test], answer)
    if arm.recipe == "grpo":
        rounds = config.rounds(task, inputs.prompts, inputs.heldout)
        schedule = config.schedule(len(inputs.prompts))
        work = forecast.reinforcement(machine, rounds, schedule, spec)
        return Outlook(len(inputs.prompts), seconds + work.seconds, work.bytes, machine.total)
    if arm.recipe == "distill" and inputs.labels is None and config.teacher != "recorded":
        shots = len(task.examples) if config.shots is None else config.shots
        texts = [len(chat.encode(row.text)) for row in inputs.rows]
        seconds += forecast.reading(
            speed, [*texts, len(chat.prompt(task.messages("", shots)))], answer
        )
    students = _students(arm, inputs, chat, task)
    works = [
        forecast.training(machine, rows, config.schedule(len(rows)), spec) for rows in students
    ]
    seconds += len(works) * forecast.reading(
        speed, [len(make_prompt(chat, task, row)) for row in inputs.val], answer
    )
    seconds += sum(work.seconds for work in works)
    return Outlook(len(students[0]), seconds, max(work.bytes for work in works), machine.total)


def _students(arm: Arm, inputs: Any, chat: Chat, task: Task) -> list[list[int]]:
    """Return, for each student, the tokens of each row it learns from."""
    if arm.recipe == "distill":
        prompts = [len(chat.prompt(task.messages(row.text))) for row in inputs.rows]
        return [[tokens + task.max_answer_tokens for tokens in prompts]]
    learned = (inputs.kept, inputs.random) if arm.recipe == "filtered_sft" else (inputs.episodes,)
    students = []
    for episodes in learned:
        if episodes:
            students.append([len(episode.tokens) for episode in episodes])
    return students
