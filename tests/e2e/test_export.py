"""`offapi export` as a user runs it: each form written, opened again by its own tool, compared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny_llama
from recipe_folder import TASK, environment, offapi, start, told, write_jsonl

from offapi import adapter as adapters
from offapi.export import adapter_form
from offapi.export.export import staged
from offapi.files.hashing import sha256_file

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
val = "val.jsonl"
model = "model"
out = "runs"
epochs = 20.0
lr = 0.005
[lora]
rank = 4
"""
SHOPS = ("Ash", "Birch", "Cedar", "Elm")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny trained run, its model and its validation documents."""
    folder = tmp_path_factory.mktemp("trained")
    tiny_llama.write_chat(folder / "model")
    (folder / "task.py").write_text(TASK)
    (folder / "sft.toml").write_text(RECIPE)
    rows = [
        {"id": f"d{i}", "document": f"from {SHOPS[i % 4]}, no {i}", "gold": {"shop": SHOPS[i % 4]}}
        for i in range(8)
    ]
    write_jsonl(folder / "train.jsonl", rows[:4])
    write_jsonl(folder / "val.jsonl", rows[4:])
    done = offapi("train", "sft.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def export(folder: Path, *words: str) -> dict[str, Any]:
    done = offapi("export", "runs/sft", *words, "--json", cwd=folder)
    return told(done)


@pytest.mark.parametrize(
    ("to", "backend", "tool"),
    [("adapter", "torch", "torch"), ("fused", "mlx", "torch"), ("mlx", "torch", "mlx")],
)
def test_each_form_is_what_was_trained(
    trained: Path, tmp_path: Path, to: str, backend: str, tool: str
) -> None:
    for library in (backend, tool):
        pytest.importorskip(library)
    out = tmp_path / "out"
    shown = export(trained, f"--to={to}", f"--out={out}", f"--backend={backend}")
    checks = {part["what"]: part["check"] for part in shown["parts"]}
    assert (
        list(checks)
        == {
            "adapter": ["adapter"],
            "fused": ["fused model"],
            "mlx": ["fused model", "mlx-lm adapter"],
        }[to]
    )
    for check in checks.values():
        assert check["passed"]
        assert check["greedy_equal"] + check["ties"] == check["prompts"] == 6
        assert check["largest_difference_nats"] < 1e-4
    facts = orjson.loads((out / "export.json").read_bytes())
    assert {**facts, "out": str(out)} == shown
    card = (out / "README.md").read_text()
    assert facts["base"]["sha256"] in card
    assert facts["adapter"]["sha256"] == sha256_file(
        trained / "runs/sft/adapter" / adapters.WEIGHTS
    )
    assert str(trained) not in card + (out / "export.json").read_text()
    assert not list(tmp_path.glob(".tmp-*"))


def test_quantised_weights_say_what_they_cost(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlx")
    out = tmp_path / "out"
    done = offapi("export", "runs/sft", "--to=mlx", "--quantize=8", f"--out={out}", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert "shop: " in done.stderr
    facts = orjson.loads((out / "export.json").read_bytes())
    before, after = facts["parts"]
    assert [before["what"], before["folder"], before["bits"]] == ["fused model", None, None]
    assert [after["what"], after["folder"], after["bits"]] == ["fused model in 8 bits", ".", 8]
    lost = after["accuracy"]
    assert [lost["data"]["documents"], lost["data"]["file"]] == [4, "val.jsonl"]
    row = lost["rows"]["all fields"]
    assert row["difference"]["mean"] == row["after"]["mean"] - row["before"]["mean"]
    assert row["difference"]["low"] <= row["difference"]["mean"] <= row["difference"]["high"]
    config = orjson.loads((out / "config.json").read_bytes())
    assert config["quantization"]["bits"] == 8
    assert (out / "model.safetensors").stat().st_size < 150_000 < size(trained / "model")
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "config.json", "export.json", "generation_config.json"),
        *("model.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    assert "| all fields | " in (out / "README.md").read_text()


def size(model: Path) -> int:
    return (model / "model.safetensors").stat().st_size


def test_an_export_that_fails_its_check_leaves_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bench"
    shutil.copytree(trained, folder)
    manifest = folder / "runs/sft/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(os.fsencode(trained), os.fsencode(folder)))
    write = adapter_form.write_form

    def faulty(source: Any, out: Path, quantize: str | None) -> Any:
        parts = write(source, out, quantize)
        config = orjson.loads((out / adapters.CONFIG).read_bytes())
        (out / adapters.CONFIG).write_bytes(orjson.dumps({**config, "layers_to_transform": [0]}))
        return parts

    monkeypatch.setattr(adapter_form, "write_form", faulty)
    done = offapi("export", "runs/sft", "--to=adapter", "--out=out", cwd=folder)
    assert done.returncode == 1
    assert "the adapter does not compute what the run computes: " in done.stderr
    assert " nats" in done.stderr
    assert not list(folder.glob("*out*"))


def test_a_killed_export_leaves_no_folder_and_the_next_one_clears_up(
    trained: Path, tmp_path: Path
) -> None:
    words = ("export", "runs/sft", "--to=fused", f"--out={tmp_path / 'out'}")
    process = subprocess.Popen(start(*words), cwd=trained, env=environment())
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".tmp-out-*/model.safetensors")) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".tmp-out-"]
    with staged(tmp_path / "out"):
        assert len(list(tmp_path.iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("runs/sft", "--to=fused", "--out=runs"), 2, "--out exists already."),
        (("model", "--to=adapter", "--out=out"), 2, "a model alone has no adapter to export."),
        (("runs/sft", "--to=fused", "--quantize=8", "--out=out"), 2, "does not go with --to fused"),
        (("runs/sft", "--to=mlx", "--quantize=5", "--out=out"), 2, "must be 4 or 8 with --to mlx"),
        (("nothing", "--to=fused", "--out=out"), 2, "there is no run and no model 'nothing'."),
    ],
)
def test_mistakes_are_explained(
    trained: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = offapi("export", *words, cwd=trained)
    assert [done.returncode, said in done.stderr] == [code, True], done.stderr
    assert not (trained / "out").exists()
