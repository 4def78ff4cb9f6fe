"""Keys that cannot work, or would do nothing, are refused
as the recipe is read: before anything is written.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import grpo_workshop
import pytest
import recipe_folder

from offapi import adapter
from offapi.config import load
from offapi.errors import ConfigError, ModelError

REFUSED = [
    ("eval_every=0", "eval_every must be 1 or more: 0"),
    ("checkpoint_every=0", "checkpoint_every must be 1 or more: 0"),
    ("warmup_steps=-1", "warmup_steps must be 0 or more: -1"),
    ("epochs=inf", "epochs must be above 0 and at most 100,000: inf"),
    ("lr=-1e-4", "lr must be 0 or more: -0.0001"),
    ("lr=nan", "lr must be 0 or more: nan"),
    ("num_generations=1", "num_generations must be 2 or more: 1"),
    ("num_iterations=0", "num_iterations must be 1 or more: 0"),
    ("temperature=0.001", "temperature must be 0.05 or more: 0.001"),
    ("top_k=-1", "top_k must be 0 or more: -1"),
    ("top_p=0.0", "top_p must be above 0 and at most 1: 0.0"),
    ("top_p=1.1", "top_p must be above 0 and at most 1: 1.1"),
    ("min_p=1.0", "min_p must be 0 or more and below 1: 1.0"),
    ("min_p=-0.1", "min_p must be 0 or more and below 1: -0.1"),
    ("max_resamples=-1", "max_resamples must be 0 or more: -1"),
    ("overlong=-1", "overlong must be 0 or more: -1"),
    ("workers=0", "workers must be 1 or more: 0"),
    ("reward_seconds=0.0", "reward_seconds must be above 0: 0.0"),
    ("loss.epsilon=-1.0", "epsilon must be 0 or more: -1.0"),
    ("loss.epsilon_high=-1.0", "epsilon_high must be 0 or more: -1.0"),
    ("loss.beta=-0.1", "beta must be 0 or more: -0.1"),
    ("loss.tis_cap=-1.0", "tis_cap must be 0 or more: -1.0"),
    ("lora.rank=0", "rank must be 1 or more: 0"),
    ("limits.rollout_rows=0", "rollout_rows must be 1 or more: 0"),
    ("optimizer.beta2=1.0", "beta2 must be 0 or more and below 1: 1.0"),
    ("optimizer.eps=0.0", "eps must be above 0: 0.0"),
]


def read(recipe: Path, *overrides: str) -> Any:
    return load.load(recipe, importlib.import_module("offapi.recipes.grpo").Config, overrides)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recipe_folder.lay_out(tmp_path_factory.mktemp("keys"), "grpo")


@pytest.mark.parametrize(("override", "what"), REFUSED, ids=[override for override, _ in REFUSED])
def test_a_key_out_of_its_bounds_is_refused_by_name(recipe: Path, override: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(recipe, override)
    assert caught.value.what == f"{what}."
    assert caught.value.where == f"--set {override}"
    assert caught.value.next_step


def test_in_a_file_its_line_is_named(tmp_path: Path) -> None:
    recipe = grpo_workshop.write_recipe(
        tmp_path, "grpo", 4, recipe="grpo", task="t.py", data="d.jsonl", eval_every=0
    )
    with pytest.raises(ConfigError) as caught:
        read(recipe)
    assert caught.value.where == f"{recipe}, line 4, field 'eval_every'"


def test_what_is_allowed_at_the_bounds(recipe: Path) -> None:
    keys = (
        "lr=0",
        "temperature=0.05",
        "top_p=1.0",
        "min_p=0.0",
        "overlong=0",
        "warmup_steps=0",
        "eval_every=1",
    )
    assert (
        read(recipe, *keys, "loss.tis_cap=0.0", "loss.epsilon=0.0", "loss.epsilon_high=4.0").lr
        == 0.0
    )


def test_an_epsilon_that_the_rule_does_not_use_is_refused(recipe: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"epsilon has no effect with cispo.*epsilon_high.*0\.1"
    ) as caught:
        read(recipe, "loss.rule=cispo", "loss.epsilon=0.1")
    assert caught.value.where == "--set loss.epsilon=0.1"
    assert read(recipe, "loss.rule=cispo", "loss.epsilon_high=0.1").loss.high == 0.1


@pytest.mark.parametrize("overlong", [20, 21])
def test_a_soft_limit_as_long_as_the_answer_is_refused(recipe: Path, overlong: int) -> None:
    done = recipe_folder.offapi("train", str(recipe), "--set", f"overlong={overlong}")
    assert done.returncode == 2
    limit = "overlong must be below the task's max_answer_tokens (20)"
    assert f"{limit}, got {overlong}" in done.stderr
    assert f"{recipe.parent / 'task.py'}, field 'max_answer_tokens'" in done.stderr
    assert not (recipe.parent / "runs").exists()


def test_an_adapter_without_rank_is_refused(tmp_path: Path) -> None:
    text = '{"peft_type": "LORA", "r": 0, "lora_alpha": 8, "target_modules": ["q_proj"]}'
    (tmp_path / adapter.CONFIG).write_text(text)
    with pytest.raises(ModelError, match="rank must be 1 or more"):
        adapter.read_spec(tmp_path)
