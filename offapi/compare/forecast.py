"""How long the arms will take, and how much memory,
before any is begun: upper bounds, answers at full length.

Left out: what is not known beforehand, such as answers that end early or fail the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """An arm's time and memory. `rows`: at most so many are learned from."""

    rows: int
    seconds: float
    memory: float  # bytes at the peak
    total: float  # bytes there are


def measure_machine(keys: Keys, backend: str) -> Machine:
    """Load the student once and time it."""
    path = store.get(keys.model).path
    found: Backend = load(
        backend, ModelSpec(path, dtype=keys.dtype, device=keys.device, limits=keys.limits)
    )
    try:
        return Machine.of(found)
    finally:
        found.close()


def forecast_arm(
    arm: Arm, task: Task, test: Sequence[Row], machine: Machine, out: Progress
) -> Outlook:
    """What training the arm and scoring it on `test` take at most.

    Raises what its recipe's `prepare` raises.
    """
    config = arm.config
    inputs = recipe_module(arm.recipe).prepare(config, out)
    chat, answer, speed, spec = (
        inputs.chat,
        task.max_answer_tokens,
        machine.speed,
        config.spec(inputs.model),
    )
    seconds = forecast.reading(speed, [len(make_prompt(chat, task, row)) for row in test], answer)
    if arm.recipe == "grpo":
        rounds, schedule = (
            config.rounds(task, inputs.prompts, inputs.heldout),
            config.schedule(len(inputs.prompts)),
        )
        work = forecast.reinforcement(machine, rounds, schedule, spec)
        return Outlook(len(inputs.prompts), seconds + work.seconds, work.bytes, machine.total)
    if arm.recipe == "distill" and inputs.labels is None and config.teacher != "recorded":
        shots = len(task.examples) if config.shots is None else config.shots
        texts = [len(chat.encode(each.text)) for each in inputs.rows]
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
    """Tokens of each row that each student learns."""
    if arm.recipe == "distill":
        return [
            [
                len(chat.prompt(task.messages(row.text))) + task.max_answer_tokens
                for row in inputs.rows
            ]
        ]
    learned = (inputs.kept, inputs.random) if arm.recipe == "filtered_sft" else (inputs.episodes,)
    return [[len(each.tokens) for each in rows] for rows in learned if rows]
