"""`offapi export` as a user runs it: each form written, opened again by its own tool, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny_llama
from recipe_folder import TASK, offapi, told, write_jsonl

from offapi import adapter as adapters
from offapi.files.hashing import sha256_file

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
val = "val.jsonl"
model = "model"
out = "runs"
epochs = 30.0
lr = 0.02
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


@pytest.mark.parametrize("to", ["adapter", "fused", "mlx"])
def test_each_form_is_what_was_trained(
    trained: Path, tmp_path: Path, to: str, backend_name: str
) -> None:
    needs = "mlx" if to == "mlx" else "torch"
    pytest.importorskip(needs)
    out = tmp_path / "out"
    shown = export(trained, f"--to={to}", f"--out={out}", f"--backend={backend_name}")
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
