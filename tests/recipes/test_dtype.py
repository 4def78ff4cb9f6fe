"""`dtype = "auto"`: bfloat16 on a GPU, float32 on the CPU; said, kept in the manifest, resumed.

There is no GPU here: what a backend says of its device is replaced, nothing that computes.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder

from offapi import cli
from offapi.adapter import WEIGHTS
from offapi.backend import resolve_dtype
from offapi.errors import BackendError

BACKENDS = [name for name in ("torch", "mlx") if find_spec(name)]


def on_gpu(monkeypatch: pytest.MonkeyPatch, backend_name: str, *, there: bool) -> None:
    module = import_module(f"offapi.backends.{backend_name}_backend.backend")
    monkeypatch.setattr(module, "prefers_bfloat16", lambda device: there and device != "cpu")


def train(recipe: Path, backend_name: str, *words: str) -> int:
    return cli.run(["train", str(recipe), "--backend", backend_name, *words])


def manifest(run: Path) -> Any:
    return orjson.loads((run / "manifest.json").read_bytes())


def undo_the_end(run: Path) -> None:
    """Leave the run as if it had been ended before its last checkpoint."""
    shutil.rmtree(run / "adapter")
    shutil.rmtree(max((run / "checkpoints").iterdir()))


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_a_run_computes_in_what_suits_its_device_and_resumes_in_it(
    tmp_path: Path,
    backend_name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapters = {}
    for there, dtype in ((True, "bfloat16"), (False, "float32")):
        recipe = recipe_folder.lay_out(tmp_path / dtype, epochs=2.0, checkpoint_every=4)
        run = recipe.parent / "runs" / "sft"
        on_gpu(monkeypatch, backend_name, there=there)
        assert train(recipe, backend_name) == 0
        assert f"Computing in {dtype} on" in capsys.readouterr().err
        assert manifest(run)["config"]["dtype"] == dtype
        before = (run / "adapter" / WEIGHTS).read_bytes()
        undo_the_end(run)
        on_gpu(monkeypatch, backend_name, there=not there)  # as on another machine
        assert train(recipe, backend_name, "--resume") == 0
        assert f"Computing in {dtype}, as the run began." in capsys.readouterr().err
        assert (run / "adapter" / WEIGHTS).read_bytes() == before
        adapters[dtype] = before
    assert adapters["bfloat16"] != adapters["float32"]


def test_a_dtype_that_is_given_is_kept_and_not_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_folder.lay_out(tmp_path / "a", epochs=1.0)
    on_gpu(monkeypatch, "torch", there=True)
    assert train(recipe, "torch", "--set", "dtype=float32") == 0
    assert "Computing in" not in capsys.readouterr().err
    run = recipe.parent / "runs" / "sft"
    assert manifest(run)["config"]["dtype"] == "float32"
    undo_the_end(run)
    assert train(recipe, "torch", "--resume", "--set", "dtype=bfloat16") == 1
    assert "dtype" in capsys.readouterr().err


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_auto_asks_the_backend_about_the_device_that_is_used(
    backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_dtype("auto", backend_name) == "float32"  # this machine has no GPU
    assert resolve_dtype("bfloat16", backend_name) == "bfloat16"
    on_gpu(monkeypatch, backend_name, there=True)
    assert resolve_dtype("auto", backend_name) == "bfloat16"
    assert resolve_dtype("auto", backend_name, "cpu") == "float32"
    assert resolve_dtype("float32", backend_name) == "float32"


def test_a_device_that_is_not_there_is_refused_before_a_run_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BackendError, match="abacus"):
        resolve_dtype("auto", "torch", "abacus")
    recipe = recipe_folder.lay_out(tmp_path / "a", device="abacus")
    assert train(recipe, "torch") == 1
    assert "abacus" in capsys.readouterr().err
    assert not (recipe.parent / "runs" / "sft").exists()


@pytest.mark.parametrize("name", ["cuda", "GPU", "metal", "cpu"])
def test_a_device_given_as_backend_says_what_a_backend_is(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "sft.toml", "--backend", name]) == 2
    said = capsys.readouterr().err
    assert "torch (which uses a CUDA GPU by itself where there is one)" in " ".join(said.split())
