"""A forecast of the arms' time and memory.

Left out: the arithmetic of one run (`offapi.evaluation.run_forecast`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from offapi.backend import Backend, load
from offapi.compare.arm import Arm
from offapi.compare.config import Keys, recipe_module
from offapi.data.rows import Row
from offapi.evaluation.predict import make_prompt
from offapi.evaluation.run_forecast import Outlook, forecast_run
from offapi.model_spec import ModelSpec
from offapi.models import store
from offapi.progress import Progress
from offapi.task import Task
from offapi.training import forecast
from offapi.training.forecast import Machine


def measure_machine(keys: Keys, backend: str) -> Machine:
    """Load the student once and time it."""
    path = store.get(keys.model).path
    spec = ModelSpec(path, lora=keys.lora, dtype=keys.dtype, device=keys.device, limits=keys.limits)
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
    outlook = forecast_run(config, inputs, machine)
    asked = [len(make_prompt(inputs.chat, task, row)) for row in test]
    reading = forecast.reading(machine.speed, asked, task.max_answer_tokens)
    return replace(outlook, seconds=outlook.seconds + reading)
