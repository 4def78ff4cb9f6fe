"""`offapi explain`: complete, from the same words as the pages, and where errors point to it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from recipe_folder import offapi, told

from offapi import checks
from offapi.checks.kinds import KIND_NAMES
from offapi.explain.checks import explained_checks
from offapi.explain.recipe_keys import RECIPES, recipe_keys
from offapi.task.task import Task

TYPES = {"Answer", "Check", "Context", "Kind", "KindName", "Match", "Verdict"}


def test_every_kind_is_listed_with_what_is_equal_and_what_is_not() -> None:
    assert set(told(offapi("explain", "match", "--json"))) == set(KIND_NAMES)
    shown = offapi("explain", "match").stderr
    assert shown.count("not equal: answer ") == len(KIND_NAMES)
    assert 'answer "INV-2026-00417", gold "INV-2026-00417"' in shown


def test_every_public_check_is_listed_as_it_is_written() -> None:
    found = told(offapi("explain", "checks", "--json"))
    assert set(found) == {*set(checks.__all__) - TYPES, "offapi.judge"}
    assert found["in_range"]["call"] == "in_range(field, low=None, high=None)"
    assert found["is_json"] == {
        "call": "is_json",
        "score": "1 when the answer is one JSON object, else 0.",
    }
    assert all(check.meaning.endswith(".") for check in explained_checks())
    shown = offapi("explain", "checks").stderr
    assert "audit=(" in shown
    assert "reward=function" in shown
    assert {"audit", "reward"} <= {field.name for field in fields(Task)}


def test_one_check_is_explained_whole() -> None:
    shown = offapi("explain", "checks", "own").stderr
    assert "own(function)" in shown
    assert "true or false, a score from 0 to 1, or (score, reason)" in " ".join(shown.split())
    assert "rubric" in offapi("explain", "checks", "judge").stderr
    slip = offapi("explain", "checks", "in_rang")
    assert slip.returncode == 2
    assert "Did you mean 'in_range'?" in slip.stderr


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_key_of_a_recipe_has_type_default_and_meaning(recipe: str) -> None:
    found = told(offapi("explain", "recipe", recipe, "--json"))
    assert found["lora.rank"] == {
        "type": "whole number",
        "default": "16",
        "meaning": "rank of the adapter",
    }
    assert found["task"]["default"] == "must be given"
    assert {"dtype", "device", "quantize", "on_long", "seed"} <= set(found)
    assert all(key["type"] and key["meaning"] for key in found.values())


def test_grpos_own_keys_are_there() -> None:
    keys = {key.name: key for key in recipe_keys("grpo")}
    assert keys["adapter"].type == "path"
    assert keys["loss.rule"].type.startswith("grpo | dr_grpo |")


def test_an_unknown_kind_names_all_kinds_and_where_they_are_described(tmp_path: Path) -> None:
    path = tmp_path / "task.py"
    path.write_text(
        "import offapi\nfrom offapi.checks import is_json\ntask = offapi.Task(name='t',"
        " instructions='Sort.', schema={'type': 'object', 'properties': {'category': {}}},"
        " checks={'json': (is_json, 1.0)}, match={'category': 'enum'})\n"
    )
    done = offapi("grade", "--task", str(path), "--traces", str(path))
    assert done.returncode == 2
    assert all(name in done.stderr for name in KIND_NAMES)
    assert "Did you mean 'choice'?" in done.stderr
    assert "offapi explain match" in done.stderr
