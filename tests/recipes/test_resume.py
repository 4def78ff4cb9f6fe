"""A run killed at any moment resumes and ends with the same bytes."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import orjson
import pytest
import recipe_folder

from offapi import adapter
from offapi.backend import load
from offapi.episodes import Episode, Segment
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models.adapter_probe import PROBE
from offapi.optimizer import AdamW, TrainState
from offapi.training import train_state

TIMEOUT = 120  # seconds


def kill_after(
    recipe: Path, backend_name: str, steps: int, number: signal.Signals, name: str = "sft"
) -> None:
    """Start a run and send it signal `number` once the run `name` has logged `steps` steps."""
    words = recipe_folder.start("train", str(recipe), "--backend", backend_name)
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, env=recipe_folder.environment(), text=True
    )
    log = recipe.parent / "runs" / name / "metrics.jsonl"
    recipe_folder.until(
        lambda: (
            process.poll() is not None or (log.exists() and log.read_bytes().count(b"\n") >= steps)
        )
    )
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0, "the run was over before it could be interrupted"
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in errors


def weights(recipe: Path) -> tuple[bytes, bytes]:
    folder = recipe.parent / "runs" / "sft" / "adapter"
    return (folder / adapter.WEIGHTS).read_bytes(), (folder / PROBE).read_bytes()


SETTINGS = {"epochs": 8.0, "checkpoint_every": 5}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the recipe of an uninterrupted run, by backend."""

    @cache
    def made(backend_name: str) -> Path:
        recipe = recipe_folder.lay_out(tmp_path_factory.mktemp(backend_name), **SETTINGS)
        done = recipe_folder.apart("train", str(recipe), "--backend", backend_name)
        assert done.returncode == 0, done.stderr
        return recipe

    return made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_resumed_run_ends_with_the_same_bytes(
    tmp_path: Path, backend_name: str, straight: Callable[[str], Path], number: signal.Signals
) -> None:
    broken = recipe_folder.lay_out(tmp_path, **SETTINGS)
    kill_after(broken, backend_name, 12, number)
    assert not (broken.parent / "runs" / "sft" / "adapter").exists()
    lower = ("--set", "limits.rollout_rows=8")  # as after a full memory; training holds no rollouts
    resumed = recipe_folder.apart(
        "train", str(broken), "--backend", backend_name, "--resume", *lower
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "Resumed at step" in resumed.stderr
    assert weights(broken) == weights(straight(backend_name))
    one, other = (
        recipe_folder.metrics(recipe.parent / "runs" / "sft")
        for recipe in (straight(backend_name), broken)
    )
    assert one == other


def test_the_control_resumes_where_it_was_killed(tmp_path: Path, backend_name: str) -> None:
    recipes = []
    for name in ("straight", "broken"):
        settings = {"traces": "train.jsonl", "epochs": 8.0, "checkpoint_every": 5}
        recipe = recipe_folder.lay_out(
            tmp_path / name, "filtered_sft", count=12, wrong=4, **settings
        )
        recipe.write_text(recipe.read_text().replace('data = "train.jsonl"\n', ""))
        recipes.append(recipe)
    straight, broken = recipes
    assert recipe_folder.apart("train", str(straight), "--backend", backend_name).returncode == 0
    kill_after(broken, backend_name, 12, signal.SIGKILL, "filtered-sft/control")
    resumed = recipe_folder.apart("train", str(broken), "--backend", backend_name, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for run in ("filtered-sft", "filtered-sft/control"):
        one, other = (recipe.parent / "runs" / run for recipe in recipes)
        assert recipe_folder.metrics(one) == recipe_folder.metrics(other)
        assert (one / "adapter" / adapter.WEIGHTS).read_bytes() == (
            other / "adapter" / adapter.WEIGHTS
        ).read_bytes()


@pytest.mark.parametrize("recipe", ["sft", "distill", "filtered_sft"])
def test_a_damaged_checkpoint_is_reported_and_skipped(
    tmp_path: Path, backend_name: str, recipe: str
) -> None:
    path = recipe_folder.lay_out(tmp_path, recipe)
    if recipe == "filtered_sft":
        path.write_text(
            path.read_text().replace(
                'data = "train.jsonl"', 'traces = "train.jsonl"\ncontrol = false'
            )
        )
    run = tmp_path / "runs" / recipe.replace("_", "-")
    assert recipe_folder.offapi("train", str(path), "--backend", backend_name).returncode == 0
    before = (run / "adapter" / adapter.WEIGHTS).read_bytes()
    shutil.rmtree(run / "adapter")
    flip(run / "checkpoints" / "step-000010" / train_state.OPTIMIZER)
    resumed = recipe_folder.offapi("train", str(path), "--backend", backend_name, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    said = [line for line in resumed.stderr.splitlines() if line.startswith("Resumed")]
    assert said == ["Resumed at step 8 of 10: checkpoint step-000010 is damaged."]
    assert (run / "adapter" / adapter.WEIGHTS).read_bytes() == before
    for name in ("step-000008", "step-000010"):
        flip(run / "checkpoints" / name / adapter.WEIGHTS)
    refused = recipe_folder.offapi("train", str(path), "--backend", backend_name, "--resume")
    assert refused.returncode == 1
    assert "no checkpoint is intact" in refused.stderr
    assert (run / "adapter" / adapter.WEIGHTS).read_bytes() == before


def flip(path: Path) -> None:
    """Change the last byte."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_losing_the_moments_is_noticed(tmp_path: Path, backend_name: str) -> None:
    """Negative control: without the optimizer's state the bytes differ."""
    recipe = recipe_folder.lay_out(tmp_path, epochs=4.0, checkpoint_every=5)
    assert recipe_folder.offapi("train", str(recipe), "--backend", backend_name).returncode == 0
    state = train_state.read(tmp_path / "runs" / "sft" / "checkpoints" / "step-000015")
    forgetful = replace(state, exp_avg={name: array * 0 for name, array in state.exp_avg.items()})
    assert after_a_step(tmp_path, backend_name, state) != after_a_step(
        tmp_path, backend_name, forgetful
    )


def after_a_step(folder: Path, backend_name: str, state: TrainState) -> bytes:
    """Return the adapter's bytes one step after `state`."""
    backend = load(backend_name, ModelSpec(folder / "model", lora=LoraSpec(4, 8.0)))
    backend.restore(state)
    backend.forward_backward([Episode("a", (Segment((1, 2), False), Segment((3,), True)))])
    backend.optim_step(1e-2, AdamW())
    adapter = backend.state().adapter
    return b"".join(adapter[name].tobytes() for name in sorted(adapter))


def test_a_run_begun_on_one_backend_resumes_on_the_other(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, epochs=8.0, checkpoint_every=5)
    kill_after(recipe, "torch", 12, signal.SIGKILL)
    resumed = recipe_folder.offapi("train", str(recipe), "--backend", "mlx", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    moved = recipe_folder.metrics(tmp_path / "runs" / "sft")
    shutil.rmtree(tmp_path / "runs")
    assert recipe_folder.offapi("train", str(recipe), "--backend", "torch").returncode == 0
    stayed = recipe_folder.metrics(tmp_path / "runs" / "sft")
    assert [line["step"] for line in moved] == [line["step"] for line in stayed]
    assert all(abs(a["loss"] - b["loss"]) < 1e-3 for a, b in zip(moved, stayed, strict=True))


def test_resuming_something_else_is_refused(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, epochs=1.0)
    assert recipe_folder.offapi("train", str(recipe)).returncode == 0
    again = recipe_folder.offapi("train", str(recipe))
    assert again.returncode == 1
    assert "--resume" in again.stderr
    other = recipe_folder.offapi("train", str(recipe), "--resume", "--set", "lr=0.5")
    assert other.returncode == 1
    assert "config.lr was 0.01" in other.stderr
    with (tmp_path / "train.jsonl").open("ab") as file:
        file.write(orjson.dumps(recipe_folder.rows(11)[-1]) + b"\n")
    changed = recipe_folder.offapi("train", str(recipe), "--resume")
    assert changed.returncode == 1
    assert "sha256.data" in changed.stderr
