"""How long the arms will take, and how much memory, before any is begun: upper bounds, answers at full length.

Left out: what is not known beforehand, such as answers that end early or fail the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offapi import models, plan
from offapi.backend import Backend, ModelSpec, load
from offapi.chat import Chat
from offapi.plan import Speed
from offapi.predict import prompt
from offapi.progress import Progress
from offapi.roads.arm import Arm
from offapi.roads.keys import Keys, recipe
from offapi.task import Task
from offapi.testset import Row


@dataclass(frozen=True)
class Outlook:
    """An arm's time and memory. `rows`: at most so many are learned from."""

    rows: int
    seconds: float
    memory: float  # bytes at the peak
    total: float  # bytes there are


@dataclass(frozen=True)
class Machine:
    """This machine with the student loaded: how fast it is, how much it holds."""

    backend: str
    speed: Speed
    used: float  # bytes
    total: float


def measure(keys: Keys, backend: str) -> Machine:
    """Load the student once and time it."""
    found: Backend = load(backend, ModelSpec(models.get(keys.model).path, dtype=keys.dtype, device=keys.device))
    try:
        memory = found.memory()
        return Machine(backend, plan.measure(found), memory.used, memory.total)
    finally:
        found.close()


def outlook(arm: Arm, task: Task, test: Sequence[Row], machine: Machine, out: Progress) -> Outlook:
    """What training the arm and scoring it on `test` take at most. Raises what its recipe's `prepare` raises."""
    config = arm.config
    inputs = recipe(arm.road).prepare(config, out)
    chat, answer, speed = inputs.chat, task.max_answer_tokens, machine.speed
    asked = [len(prompt(chat, task, row)) for row in test]
    seconds = reading(speed, asked, answer)
    if arm.road == "grpo":
        prompts = [len(each.tokens) for each in inputs.prompts]
        held = [len(each.tokens) for each in inputs.heldout]
        more, row = _sampling(config, speed, prompts, held, answer)
        return _made(len(prompts), seconds + more, row, arm, machine)
    lengths = _lengths(arm, inputs, chat, task)
    val = [len(prompt(chat, task, row)) for row in inputs.val]
    if arm.road == "distill" and inputs.labels is None and config.teacher != "recorded":
        shots = len(task.examples) if config.shots is None else config.shots
        texts = [len(chat.encode(each.text)) for each in inputs.rows]
        seconds += reading(speed, [*texts, len(chat.prompt(task.messages("", shots)))], answer)
    students = 2 if getattr(config, "control", False) else 1
    seconds += students * (speed.train * sum(lengths) * config.epochs + reading(speed, val, answer))
    longest = max(lengths)
    micro = min(max(config.limits.train_tokens, longest), config.batch_size * longest)
    return _made(len(lengths), seconds, micro, arm, machine)


def reading(speed: Speed, prompts: Sequence[int], answer: int) -> float:
    """Seconds to answer prompts of those lengths, each with `answer` tokens at most."""
    return speed.score * sum(prompts) + speed.decode * answer * len(prompts)


def _lengths(arm: Arm, inputs: Any, chat: Chat, task: Task) -> list[int]:
    """Tokens of each row to learn."""
    if arm.road == "distill":
        return [len(chat.prompt(task.messages(row.text))) + task.max_answer_tokens for row in inputs.rows]
    return [len(each.tokens) for each in (inputs.kept if arm.road == "filtered_sft" else inputs.episodes)]


def _sampling(config: Any, speed: Speed, prompts: Sequence[int], held: Sequence[int], answer: int) -> tuple[float, int]:
    """Seconds of GRPO as `plan.reinforcement` reckons them, and tokens of a micro-batch."""
    drawn, asked = config.num_generations * answer, sum(prompts) / len(prompts)
    one = (
        speed.score * (2 * asked + drawn) + speed.decode * drawn + speed.train * (asked + drawn) * config.num_iterations
    )
    steps = max(1, round(-(-len(prompts) // config.batch_size) * config.epochs))
    looks = 1 + -(-steps // config.eval_every)
    seconds = steps * config.batch_size * one + looks * reading(speed, held, answer)
    micro = min(max(config.limits.train_tokens, max(prompts) + answer), config.batch_size * (max(prompts) + drawn))
    return seconds, micro


def _made(rows: int, seconds: float, tokens: int, arm: Arm, machine: Machine) -> Outlook:
    folder = models.get(arm.config.model).path
    held = plan.activation_bytes(folder, machine.backend, arm.config.dtype) * tokens
    return Outlook(rows, seconds, machine.used + held, machine.total)
