"""A recipe is found by its file, and its run is held for one attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from offapi.errors import ConfigError, RunError
from offapi.training.recipe_run import RECIPES, find_recipe, hold_run, load_recipe
from offapi.training.run import Run


@pytest.mark.parametrize("name", RECIPES)
def test_a_file_names_its_recipe(tmp_path: Path, name: str) -> None:
    path = tmp_path / "any.toml"
    path.write_text(f'recipe = "{name}"\n')
    assert find_recipe(path) is load_recipe(name)
    assert find_recipe(path).__name__ == f"offapi.recipes.{name}"


@pytest.mark.parametrize(
    ("text", "said"),
    [("lr = 1.0\n", "the key 'recipe' is missing"), ('recipe = "sfd"\n', "'sfd' is not a recipe")],
)
def test_a_file_without_a_recipe_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "any.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as refused:
        find_recipe(path)
    assert refused.value.where == str(path)


def test_a_run_is_held_and_resumed_by_what_it_began_with(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", {"seed": 1})
    with hold_run(run, {"seed": 1}, resume=False):
        run.log(1, {"loss": 0.5})
    assert (run.path / "metrics.jsonl").stat().st_size > 0
    with hold_run(run, {"seed": 1}, resume=True):
        assert (run.path / "metrics.jsonl").stat().st_size == 0  # no checkpoint was taken
    with pytest.raises(RunError, match="seed was 1"), hold_run(run, {"seed": 2}, resume=True):
        pytest.fail("a run with another seed was resumed")
    with pytest.raises(RunError, match="not locked"):
        run.log(1, {})
