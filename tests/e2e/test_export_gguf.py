"""`offapi export --to gguf` as a user runs it: llama.cpp opens what a tiny run was exported to."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_gguf
from recipe_folder import TASK, offapi, told, write_jsonl

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
val = "val.jsonl"
model = "model"
out = "runs"
epochs = 10.0
lr = 0.02
[lora]
rank = 4
"""
SHOPS = ("Ash", "Birch", "Cedar", "Elm")

# Not imported here: native code that may not share a process with other such libraries.
pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")


@pytest.fixture(scope="session")  # tests of one backend come first, across modules
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny trained run, its model and its validation documents."""
    folder = tmp_path_factory.mktemp("trained")
    tiny_gguf.write(folder / "model", max_position_embeddings=2048)
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


def test_a_run_is_exported_and_what_q8_costs_is_measured(
    trained: Path, tmp_path: Path, backend_name: str
) -> None:
    out = tmp_path / "out"
    words = ("--to=gguf", f"--out={out}", f"--backend={backend_name}", "--quantize=Q8_0", "--json")
    done = offapi("export", "runs/sft", *words, cwd=trained)
    before, part = told(done)["parts"]
    assert before["check"]["largest_difference_nats"] < 1e-3
    assert (part["tool"], part["bits"]) == ("llama.cpp", 8)
    assert part["check"]["template_equal"]
    assert part["accuracy"]["data"]["documents"] == 4
    files = {path.name for path in out.iterdir()}
    assert files == {"model.gguf", "Modelfile", "README.md", "export.json"}
    assert (out / "Modelfile").read_text().startswith("FROM ./model.gguf\n")
    assert str(trained) not in (out / "README.md").read_text()
