"""Runs that train every weight: their result is a model, which all commands take as a base."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpo_signal
import numpy as np
import orjson
import pytest
import recipe_folder
import tiny_llama
from safetensors.numpy import load_file

from offapi.backend import load
from offapi.errors import ModelError, RunError
from offapi.model_spec import ModelSpec
from offapi.models.adapter_probe import read_probe, tolerance
from offapi.models.parity import largest_difference
from offapi.predict.answering_model import AnsweringModel
from offapi.training import whole_model

FULL = ("--set", "full=true", "--set", "lr=1e-3")


def train(recipe: Path, backend_name: str, *words: str) -> str:
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name, *FULL, *words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_result_is_a_model_and_a_resumed_run_ends_with_its_bytes(
    tmp_path: Path, backend_name: str
) -> None:
    recipe = recipe_folder.lay_out(tmp_path, epochs=2.0, checkpoint_every=2)
    run = tmp_path / "runs" / "sft"
    told = train(recipe, backend_name)
    assert "what `lora` says is not used" in told
    assert f"Model: {run / 'model'}." in told
    trained, base = (
        load_file(folder / "model.safetensors") for folder in (run / "model", tmp_path / "model")
    )
    assert trained.keys() == base.keys()
    assert all(np.abs(trained[name] - base[name]).max() > 0 for name in base)
    lines = recipe_folder.metrics(run)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert not (run / "adapter").exists()
    answering = AnsweringModel.of(run)
    assert (answering.model.path, answering.adapter) == (run / "model", None)
    record = read_probe(answering.recorded)
    assert record is not None
    for folder, same in ((run / "model", True), (tmp_path / "model", False)):
        backend = load(backend_name, ModelSpec(folder, device="cpu"))
        assert (largest_difference(backend, record) <= tolerance(record, "float32")) == same
        backend.close()
    out = tmp_path / "again.jsonl"
    words = ["--task", str(tmp_path / "task.py"), "--data", str(tmp_path / "val.jsonl")]
    words += ["--model", str(run / "model"), "--backend", backend_name, "--out", str(out)]
    scored = recipe_folder.offapi("eval", *words)
    assert scored.returncode == 0, scored.stderr
    answers = [
        [orjson.loads(line)["output"] for line in path.read_bytes().splitlines()]
        for path in (out, run / "predictions.jsonl")
    ]
    assert answers[0] == answers[1]
    whole = (run / "model" / "model.safetensors").read_bytes()
    last = max((run / "checkpoints").iterdir())
    shutil.rmtree(last)
    shutil.rmtree(run / "model")
    with pytest.raises(RunError, match="no model yet"):
        AnsweringModel.of(run)
    train(recipe, backend_name, "--resume")
    assert (run / "model" / "model.safetensors").read_bytes() == whole
    assert recipe_folder.metrics(run) == lines


def test_grpo_trains_every_weight_and_keeps_the_best(tmp_path: Path, backend_name: str) -> None:
    recipe = grpo_signal.lay_out(tmp_path)
    words = ("--set", "epochs=0.5", "--set", "allow=['learned']")
    train(recipe, backend_name, *words)
    run = tmp_path / "runs" / "grpo"
    best = load_file(run / "best" / "model.safetensors")
    result = load_file(run / "model" / "model.safetensors")
    assert best.keys() == result.keys()
    assert all(np.array_equal(best[name], result[name]) for name in best)
    whole = (run / "model" / "model.safetensors").read_bytes()
    last = max((run / "checkpoints").iterdir())
    assert (last / "model.safetensors").read_bytes() != whole  # the last weights are not the best
    for folder in ("model", "best"):
        shutil.rmtree(run / folder)
    train(recipe, backend_name, *words, "--resume")
    assert (run / "model" / "model.safetensors").read_bytes() == whole


def test_weights_that_are_held_otherwise_than_stored_are_refused(tmp_path: Path) -> None:
    base = tiny_llama.write(tmp_path / "model")
    stored = load_file(base / "model.safetensors")
    whole_model.check_as_stored(base, stored)
    name = "model.norm.weight"
    for other in (
        {**stored, name: stored[name] + 1},
        {key: array for key, array in stored.items() if key != name},
        {**stored, "model.more": stored[name]},
    ):
        with pytest.raises(ModelError, match="cannot be trained in full"):
            whole_model.check_as_stored(base, other)
    assert whole_model.count_weights(base) == sum(array.size for array in stored.values())


def test_full_and_an_adapter_do_not_go_together(tmp_path: Path) -> None:
    recipe = grpo_signal.lay_out(tmp_path)
    words = ["--set", "full=true", "--set", f"adapter={tmp_path}"]
    done = recipe_folder.offapi("train", str(recipe), *words)
    assert done.returncode != 0
    assert "not both at once" in done.stderr
