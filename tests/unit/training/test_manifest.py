"""Manifests and folder names do not change: otherwise no run resumes and no arm is found."""

from __future__ import annotations

import hashlib
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import model_files
import orjson
import pytest

from offapi.errors import DataError
from offapi.models.lock import LOCK
from offapi.training import manifest
from offapi.training.manifest import (
    as_begun,
    describe_answers,
    describe_arm,
    describe_run,
    hash_model,
    name_folder,
)
from offapi.training.prompt_settings import day_of

# What version 0.1 computed for these inputs: (of the run's manifest, the arm's folder).
KNOWN = {
    "sft": ("03f2113be33cc8d2", "sft-d5f5a71fafef"),
    "distill": ("6cdcd0ea100cbbc2", "distill-58f4b7bc1ef7"),
    "filtered_sft": ("08be53a7847ca86c", "filtered-sft-796717bd58ab"),
    "grpo": ("9107f565502852fd", "grpo-1916e01cdc4e"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write everything a recipe reads, with fixed bytes."""
    monkeypatch.setattr(manifest, "__version__", "1.2.3")
    (tmp_path / "task.py").write_text("task = None\n")
    (tmp_path / "train.jsonl").write_text('{"id": "a"}\n')
    (tmp_path / "val.jsonl").write_text('{"id": "b"}\n')
    (model_files.folder(tmp_path / "model") / LOCK).write_text("{}\n")
    adapter = tmp_path / "student" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}\n")
    (adapter / "w").write_text("w")
    return tmp_path


def config(folder: Path, recipe: str, **keys: Any) -> Any:
    data = {"traces" if recipe == "filtered_sft" else "data": folder / "train.jsonl"}
    common = {"task": folder / "task.py", "val": folder / "val.jsonl", "out": folder / "runs"}
    module = import_module(f"offapi.recipes.{recipe}")
    keys = {"dtype": "float32", **keys}  # what "auto" is on a CPU, and the default of version 0.1
    return module.Config(model=str(folder / "model"), **common, **data, **keys)


def fingerprint(value: Any, folder: Path) -> str:
    """Hash the bytes of a manifest as it is written, wherever `folder` is."""
    written = orjson.dumps(value).replace(str(folder).encode(), b"FOLDER")
    return hashlib.sha256(written).hexdigest()[:16]


@pytest.mark.parametrize("recipe", KNOWN)
def test_runs_and_arms_are_found_again(folder: Path, recipe: str) -> None:
    more: dict[str, Any] = {"control": False} if recipe == "filtered_sft" else {}
    start, given = None, config(folder, recipe, **more)
    arm = given
    if recipe == "grpo":
        start = "sft-0123456789ab"
        more = {"adapter": folder / "student" / "adapter", "workers": 5, "allow": ("cut",)}
        given = config(folder, recipe, **more)
    name = name_folder(recipe, describe_arm(recipe, arm, "torch", start))
    assert (fingerprint(describe_run(given), folder), name) == KNOWN[recipe]


def test_kept_answers_are_found_again(folder: Path) -> None:
    hashes = {
        "task": hashlib.sha256(b"task = None\n").hexdigest(),
        "model": hash_model(str(folder / "model")),
    }
    settings = {"shots": 0, "dtype": "float32", "quantize": None, "device": "auto"}
    found = describe_answers("torch", hashes, **settings)
    assert name_folder("base", found) == "base-1d2a1911acc2"
    test = {"test": hashlib.sha256(b'{"id": "b"}\n').hexdigest()}
    ordered = {"model": hashes["model"], "task": hashes["task"], **test}
    assert fingerprint(describe_answers("mlx", ordered), folder) == "80950e1b3e6fa0c6"


@pytest.mark.parametrize(
    ("key", "other"), [("lr", 0.5), ("seed", 1), ("model", None), ("data", None)]
)
def test_what_changes_a_result_changes_both(folder: Path, key: str, other: Any) -> None:
    before = config(folder, "sft")
    was = describe_run(before), describe_arm("sft", before, "torch", None)
    if key == "model":
        (folder / "model" / LOCK).write_text("{ }\n")
    elif key == "data":
        (folder / "train.jsonl").write_text('{"id": "c"}\n')
    after = config(folder, "sft", **({key: other} if other is not None else {}))
    assert describe_run(after) != was[0]
    assert describe_arm("sft", after, "torch", None) != was[1]


def test_where_files_are_does_not_matter_to_an_arm(folder: Path) -> None:
    before = describe_arm("sft", config(folder, "sft"), "torch", None)
    (folder / "task.py").rename(folder / "other.py")
    moved = import_module("offapi.recipes.sft").Config(
        task=folder / "other.py",
        data=folder / "train.jsonl",
        val=folder / "val.jsonl",
        model=str(folder / "model"),
        out=folder / "elsewhere",
        name="other",
        dtype="float32",
    )
    assert describe_arm("sft", moved, "torch", None) == before


def test_a_resumed_run_may_have_lower_limits_and_more_workers(folder: Path) -> None:
    began = describe_run(config(folder, "grpo", workers=1))
    lower = import_module("offapi.model_spec").Limits(rollout_rows=8)
    now = describe_run(config(folder, "grpo", workers=7, limits=lower))
    assert now != began
    assert as_begun(now, began, config(folder, "grpo")) == began


def test_a_file_of_an_arm_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "train.jsonl").unlink()
    with pytest.raises(DataError, match="cannot be read") as refused:
        describe_arm("sft", config(folder, "sft"), "torch", None)
    assert refused.value.where == str(folder / "train.jsonl")


def test_a_run_has_the_day_on_which_it_began() -> None:
    """Runs of earlier versions have only the moment at which they were created."""
    created = "2026-11-05T01:02:03+00:00"
    assert day_of({"created": created}) == "2026-11-05"
    assert day_of({"created": created, "date": "2026-11-04"}) == "2026-11-04"
    assert day_of({}) == str(date.today())
