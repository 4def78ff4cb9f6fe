"""A recipe is found by its file, and its run is held for one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offapi.errors import ConfigError, DataError, RunError
from offapi.training import recipe_run
from offapi.training.job import Job
from offapi.training.recipe_run import (
    RECIPES,
    find_recipe,
    free_name,
    hold_run,
    load_recipe,
    run_recipe_file,
    with_dtype,
)
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


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Every recipe file's recipe: what it does is in `does`, how it was called in `jobs`."""
    found = SimpleNamespace(jobs=[], does=lambda job: "report")

    def run(job: Job[Any, Any]) -> Any:
        found.jobs.append(job)
        return found.does(job)

    task = SimpleNamespace(is_agent=False)
    inputs = SimpleNamespace(chat=SimpleNamespace(no_system=False), task=task)
    module = SimpleNamespace(Config=None, prepare=lambda config, progress: inputs, run=run)
    monkeypatch.setattr(recipe_run, "find_recipe", lambda path: module)
    monkeypatch.setattr(recipe_run, "describe_run", lambda config: {"config": {"lr": config.lr}})
    monkeypatch.setattr(recipe_run, "as_begun", lambda manifest, began, config: manifest)
    return found


def run_it(folder: Path, *, resume: bool = False, **keys: Any) -> tuple[Run, Any, str]:
    """Run the fixture's recipe; return the run, its report and what was said."""
    defaults = {"dtype": "float32", "device": "cpu", "data": None, "val": None, "lr": 1.0}
    config = Config(**{"name": "a", "out": folder, **defaults, **keys})
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offapi.config.load.load", lambda *_: config)
        progress = SimpleNamespace(say=said.append)
        words = {"resume": resume, "command": "offapi train a.toml"}
        run, report = run_recipe_file(Path("a.toml"), (), "torch", progress, **words)  # type: ignore[arg-type]
    return run, report, "\n".join(said)


@dataclass(frozen=True)
class Config:
    """The keys of a recipe that every run reads."""

    name: str
    out: Path
    dtype: str
    device: str
    data: Path | None
    val: Path | None
    lr: float
    recipe: str = "sft"
    template: Mapping[str, Any] = field(default_factory=dict)
    full: bool = False

    def reads(self) -> dict[str, Path]:
        return {}


def fail(job: Job[Any, Any]) -> None:
    raise ValueError("no")


def log_and_fail(job: Job[Any, Any]) -> None:
    job.folder.log(1, {"loss": 1.0})
    fail(job)


def interrupt(job: Job[Any, Any]) -> None:
    raise KeyboardInterrupt


def test_a_new_run_that_wrote_nothing_is_removed(tmp_path: Path, recipe: SimpleNamespace) -> None:
    recipe.does = fail
    with pytest.raises(ValueError, match="no"):
        run_it(tmp_path)
    assert not (tmp_path / "a").exists()
    recipe.does = log_and_fail
    with pytest.raises(ValueError, match="no"):
        run_it(tmp_path)
    assert (tmp_path / "a" / "metrics.jsonl").exists()


def test_a_resumed_run_is_never_removed(tmp_path: Path, recipe: SimpleNamespace) -> None:
    run_it(tmp_path)
    recipe.does = fail
    with pytest.raises(ValueError, match="no"):
        run_it(tmp_path, resume=True)
    assert (tmp_path / "a" / "manifest.json").exists()
    assert [job.resume for job in recipe.jobs] == [False, True]


def test_a_run_resumes_only_with_what_it_began_with(
    tmp_path: Path, recipe: SimpleNamespace
) -> None:
    run_it(tmp_path)
    with pytest.raises(RunError, match=r"config\.lr was 1\.0"):
        run_it(tmp_path, resume=True, lr=2.0)
    assert len(recipe.jobs) == 1
    with pytest.raises(RunError, match="exists already") as taken:
        run_it(tmp_path)
    assert "`offapi train a.toml --set name=a-2`" in taken.value.next_step


def test_an_interrupted_run_names_the_command_that_resumes_it(
    tmp_path: Path, recipe: SimpleNamespace
) -> None:
    recipe.does = interrupt
    with pytest.raises(KeyboardInterrupt, match=r"Resume with `offapi train a\.toml --resume`"):
        run_it(tmp_path)
    assert (tmp_path / "a" / "manifest.json").exists()


def test_the_dtype_is_said_where_the_recipe_leaves_it_open(
    tmp_path: Path, recipe: SimpleNamespace
) -> None:
    _, _, said = run_it(tmp_path, dtype="auto")
    assert "Computing in float32 on the CPU" in said
    assert recipe.jobs[0].config.dtype == "float32"
    _, _, said = run_it(tmp_path, name="b", dtype="bfloat16")
    assert "Computing in" not in said
    assert recipe.jobs[1].config.dtype == "bfloat16"
    begun = {"config": {"dtype": "bfloat16"}}
    config = SimpleNamespace(dtype="float32", device="cpu")
    assert with_dtype(config, "torch", begun) is config


def test_a_run_without_a_score_says_how_to_get_one(tmp_path: Path, recipe: SimpleNamespace) -> None:
    recipe.does = lambda job: None
    run, report, said = run_it(tmp_path)
    assert report is None
    assert "names no `val`" in said
    assert f"offapi eval --adapter {run.path / 'adapter'}" in said


def test_a_missing_file_is_named_before_anything_is_written(
    tmp_path: Path, recipe: SimpleNamespace
) -> None:
    for key in ("data", "val"):
        keys: dict[str, Any] = {key: tmp_path / "gone.jsonl"}
        with pytest.raises(DataError, match="no such file") as missing:
            run_it(tmp_path, **keys)
        assert missing.value.where == str(tmp_path / "gone.jsonl")
    assert recipe.jobs == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("taken", "free"),
    [("distill", "distill-2"), ("distill-2", "distill-3"), ("a-b", "a-b-2"), ("-", "--2")],
)
def test_the_next_free_name_counts_on(tmp_path: Path, taken: str, free: str) -> None:
    (tmp_path / taken).mkdir()
    assert free_name(tmp_path / taken) == free
    (tmp_path / free).mkdir()
    assert free_name(tmp_path / taken) not in {taken, free}
