"""What a recipe's run will take, from its inputs and a measured machine: upper bounds.

They assume answers of full length. Left out: what is not known beforehand, such as answers that end
early or fail the checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from offapi.episodes import common_prefix_length
from offapi.evaluation.predict import make_prompt
from offapi.training import forecast
from offapi.training.forecast import Machine, Peak, Work


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The work, time and memory of a run."""

    rows: int  # at most this many are learned from
    students: int = 1
    asked: int = 0  # documents that a local teacher is asked for
    scored: int  # documents that are scored
    longest: int  # tokens of the longest row, answer included
    steps: int  # of all students
    seconds: float
    trained: int  # tokens that are computed in training
    decoded: int  # tokens that are sampled
    memory: float  # bytes at the peak
    total: float  # bytes that the machine has


def forecast_run(config: Any, inputs: Any, machine: Machine) -> Outlook:
    """Return the most that a run with these inputs, as its recipe's `prepare` read them, takes."""
    if config.recipe == "grpo":
        return _reinforcement(config, inputs, machine)
    chat, task, speed = inputs.chat, inputs.task, machine.speed
    prompts = _teacher_prompts(config, inputs)
    students = _students(config.recipe, inputs)
    works: list[Work] = []
    steps = 0
    for rows, shared in students:
        schedule, spec = config.schedule(len(rows)), config.spec(inputs.model)
        works.append(forecast.training(machine, rows, schedule, spec, shared=shared))
        steps += schedule.steps
    scored = [len(make_prompt(chat, task, row)) for row in inputs.val]
    answer = task.max_answer_tokens
    seconds = forecast.reading(speed, prompts, answer) if prompts else 0.0
    seconds += len(works) * forecast.reading(speed, scored, answer)
    seconds += sum(work.seconds for work in works)
    memory = max(work.bytes for work in works)
    if scored:
        peak = Peak.of(machine, config.spec(inputs.model))
        memory = max(memory, peak.sampling(len(scored), max(scored) + answer))
    asked = len(inputs.rows) if prompts else 0
    longest = max(max(rows) for rows, _ in students)
    return Outlook(
        rows=len(students[0][0]),
        students=len(students),
        asked=asked,
        scored=len(scored),
        longest=longest,
        steps=steps,
        seconds=seconds,
        trained=sum(work.trained for work in works),
        decoded=(asked + len(works) * len(scored)) * answer,
        memory=memory,
        total=machine.total,
    )


def _reinforcement(config: Any, inputs: Any, machine: Machine) -> Outlook:
    rounds = config.rounds(inputs.task, inputs.prompts, inputs.heldout)
    rows = len(inputs.recorded or inputs.prompts)
    schedule = config.schedule(rows)
    work = forecast.reinforcement(machine, rounds, schedule, config.spec(inputs.model))
    return Outlook(
        rows=rows,
        scored=len(inputs.heldout),
        longest=max(rounds.prompts) + rounds.answer,
        steps=schedule.steps,
        seconds=work.seconds,
        trained=work.trained,
        decoded=work.decoded,
        memory=work.bytes,
        total=machine.total,
    )


def _teacher_prompts(config: Any, inputs: Any) -> list[int]:
    """Return the tokens that a local teacher reads: its examples once, and each document."""
    if config.recipe != "distill" or inputs.labels is not None or config.teacher == "recorded":
        return []
    chat, task = inputs.chat, inputs.task
    shots = len(task.examples) if config.shots is None else config.shots
    texts = [len(chat.encode(row.text)) for row in inputs.rows]
    return [*texts, len(chat.prompt(task.messages("", shots)))]


def _students(recipe: str, inputs: Any) -> list[tuple[list[int], int]]:
    """Return, for each student, the tokens of each row it learns from, and those all begin with."""
    if recipe == "distill":
        task, chat = inputs.task, inputs.chat
        prompts = [chat.prompt(task.messages(row.text)) for row in inputs.rows]
        shared = common_prefix_length(prompts) if len(prompts) > 1 else 0
        return [([len(prompt) + task.max_answer_tokens for prompt in prompts], shared)]
    learned = (inputs.kept, inputs.random) if recipe == "filtered_sft" else (inputs.episodes,)
    students = []
    for episodes in learned:
        if episodes:
            lengths = [len(episode.tokens) for episode in episodes]
            students.append((lengths, forecast.shared_tokens(episodes)))
    return students
