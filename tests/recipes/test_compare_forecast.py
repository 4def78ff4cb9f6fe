"""The forecast of a comparison's arm is the forecast that its recipe gives when it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recipe_folder

from offapi.cli.output import Output
from offapi.compare.arm import Arm
from offapi.compare.forecast import forecast_arm
from offapi.config import load as configs
from offapi.evaluation.run_forecast import Outlook
from offapi.task import load_task
from offapi.training import forecast
from offapi.training.forecast import Machine, Speed
from offapi.training.recipe_run import find_recipe

MACHINE = Machine("torch", Speed(1e-3), used=1000.0, total=1e9, free=1e9)


def expected(path: Path) -> tuple[Outlook, Any, Any]:
    """Return the recipe file's forecast as an arm without test documents, config and inputs."""
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
def test_the_forecast_of_training_counts_whole_steps(
    tmp_path: Path, epochs: float, steps: int
) -> None:
    outlook, config, inputs = expected(recipe_folder.lay_out(tmp_path, epochs=epochs))
    rows = [len(episode.tokens) for episode in inputs.episodes]
    shared = forecast.shared_tokens(inputs.episodes)
    spec = config.spec(inputs.model)
    work = forecast.training(MACHINE, rows, config.schedule(10), spec, shared=shared)
    # Two rows are a batch, and what all share is computed once for both.
    tokens = sum(rows) - 5 * shared
    assert shared > 20
    assert work.seconds == pytest.approx(MACHINE.speed.train * tokens * steps / 5)
    assert outlook.seconds == pytest.approx(work.seconds + val_seconds(inputs))
    assert (outlook.rows, outlook.memory, outlook.total) == (10, work.bytes, 1e9)


def test_the_forecast_of_filtered_sft_has_both_students(tmp_path: Path) -> None:
    path = recipe_folder.lay_out(tmp_path, "filtered_sft", count=12, wrong=6)
    path.write_text(path.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"'))
    outlook, config, inputs = expected(path)
    spec, works = config.spec(inputs.model), []
    for each in (inputs.kept, inputs.random):
        rows, shared = [len(episode.tokens) for episode in each], forecast.shared_tokens(each)
        works.append(forecast.training(MACHINE, rows, config.schedule(6), spec, shared=shared))
    assert works[0].seconds != works[1].seconds
    assert outlook.seconds == pytest.approx(
        sum(work.seconds for work in works) + 2 * val_seconds(inputs)
    )
    assert outlook.memory == max(work.bytes for work in works)


def test_the_forecast_of_grpo_is_the_recipes_own(tmp_path: Path) -> None:
    outlook, config, inputs = expected(
        recipe_folder.lay_out(tmp_path, "grpo", epochs=0.3, num_generations=2, eval_every=2)
    )
    rounds = config.rounds(inputs.task, inputs.prompts, inputs.heldout)
    work = forecast.reinforcement(
        MACHINE, rounds, config.schedule(len(inputs.prompts)), config.spec(inputs.model)
    )
    assert (outlook.seconds, outlook.memory) == (work.seconds, work.bytes)
    assert (len(inputs.prompts), rounds.looks(2), work.seconds > 0) == (10, 2, True)
