"""The forecast for an arm of a comparison equals the recipe's own when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recipe_folder

from offapi.cli.output import Output
from offapi.compare.arm import Arm
from offapi.compare.forecast import Outlook, forecast_arm
from offapi.config import load as configs
from offapi.task import load_task
from offapi.training import forecast
from offapi.training.forecast import Machine, Speed
from offapi.training.recipe_run import find_recipe

MACHINE = Machine("torch", Speed(1e-3), used=1000.0, total=1e9)


def expected(path: Path) -> tuple[Outlook, Any, Any]:
    """Return the outlook of a recipe file as an arm without a test set, its config and inputs."""
    module = find_recipe(path)
    config = configs.load(path, module.Config)
    inputs = module.prepare(config, Output(json=True))
    arm = Arm(config.recipe, config, {}, path.parent)
    return (
        forecast_arm(arm, load_task(config.task), [], MACHINE, Output(json=True)),
        config,
        inputs,
    )


def val_seconds(inputs: Any) -> float:
    asked = [len(inputs.chat.prompt(inputs.task.messages(row.text))) for row in inputs.val]
    return forecast.reading(MACHINE.speed, asked, inputs.task.max_answer_tokens)


@pytest.mark.parametrize(("epochs", "steps"), [(0.05, 1), (0.3, 2), (2.0, 10)])
def test_training_is_forecast_in_whole_steps(tmp_path: Path, epochs: float, steps: int) -> None:
    found, config, inputs = expected(recipe_folder.lay_out(tmp_path, epochs=epochs))
    rows = [len(episode.tokens) for episode in inputs.episodes]
    work = forecast.training(MACHINE, rows, config.schedule(len(rows)), config.spec(inputs.model))
    assert work.seconds == pytest.approx(MACHINE.speed.train * sum(rows) * steps / 5)
    assert found.seconds == pytest.approx(work.seconds + val_seconds(inputs))
    assert (found.rows, found.memory, found.total) == (10, work.bytes, 1e9)


def test_graded_traces_are_forecast_for_each_student(tmp_path: Path) -> None:
    path = recipe_folder.lay_out(tmp_path, "filtered_sft", count=12, wrong=6)
    path.write_text(path.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"'))
    found, config, inputs = expected(path)
    students = [[len(episode.tokens) for episode in each] for each in (inputs.kept, inputs.random)]
    works = [
        forecast.training(MACHINE, rows, config.schedule(6), config.spec(inputs.model))
        for rows in students
    ]
    assert works[0].seconds != works[1].seconds
    assert found.seconds == pytest.approx(
        sum(work.seconds for work in works) + 2 * val_seconds(inputs)
    )
    assert found.memory == max(work.bytes for work in works)


def test_grpo_is_forecast_as_by_the_recipe(tmp_path: Path) -> None:
    found, config, inputs = expected(
        recipe_folder.lay_out(tmp_path, "grpo", epochs=0.3, num_generations=2, eval_every=2)
    )
    rounds = config.rounds(inputs.task, inputs.prompts, inputs.heldout)
    work = forecast.reinforcement(
        MACHINE, rounds, config.schedule(len(inputs.prompts)), config.spec(inputs.model)
    )
    assert (found.seconds, found.memory) == (work.seconds, work.bytes)
    assert (len(inputs.prompts), rounds.looks(2), work.seconds > 0) == (10, 2, True)
