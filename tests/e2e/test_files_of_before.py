"""Files that version 0.1.0 wrote are read: a run and its checkpoint, a labels file, a drift state.

`tests/samples/version-0.1.0` holds them as that version left them: a run of 20 steps that was
killed after the twelfth, the labels of a recorded teacher, and the state of one drift check.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import orjson
import pytest
import recipe_folder
import tiny_llama
from drift_rows import row
from recipe_folder import metrics, offapi, told

SAMPLES = Path(__file__).parents[1] / "samples" / "version-0.1.0"
MADE_IN = "/tmp/before"  # absolute paths in the run's manifest begin with it


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """Return the interrupted run's folder, moved to `tmp_path` with the model it began with."""
    folder = shutil.copytree(SAMPLES / "train", tmp_path / "train")
    (folder / "runs").mkdir()
    (folder / "run").rename(folder / "runs" / "sft")
    manifest = folder / "runs" / "sft" / "manifest.json"
    text = manifest.read_text().replace(MADE_IN, str(folder))
    tiny_llama.write_chat(folder / "model")
    manifest.write_text(text)
    return folder


def test_a_run_is_resumed_from_its_checkpoint(begun: Path) -> None:
    done = recipe_folder.apart("train", "sft.toml", "--backend", "torch", "--resume", cwd=begun)
    assert done.returncode == 0, done.stderr
    assert "Resumed at step 10" in done.stderr
    expected = (SAMPLES / "train" / "metrics-of-the-whole-run.jsonl").read_bytes().splitlines()
    found = metrics(begun / "runs" / "sft")
    assert [step["step"] for step in found] == list(range(1, 21))
    assert found[:10] == [orjson.loads(line) for line in expected[:10]]
    last = orjson.loads(expected[-1])
    assert found[-1]["loss"] == pytest.approx(last["loss"], rel=1e-3)
    assert found[-1]["adapter_norm"] == pytest.approx(last["adapter_norm"], rel=1e-3)


def test_labels_are_not_asked_for_again(begun: Path) -> None:
    before = (begun / "labels.jsonl").read_bytes()
    words = ("label", "--task", "task.py", "--data", "train.jsonl", "--teacher", "recorded")
    result = told(offapi(*words, "--out", "labels.jsonl", "--json", cwd=begun))
    assert (result["ok"], result["asked"], result["left"]) == (10, 0, 0)
    assert (begun / "labels.jsonl").read_bytes() == before


def test_a_drift_state_is_continued(tmp_path: Path) -> None:
    folder = shutil.copytree(SAMPLES / "drift", tmp_path / "drift")
    (folder / "ref.jsonl").write_text("".join(row(i, "r") for i in range(500)))
    served = [row(i, "a") for i in range(200)] + [row(i, "b", i % 3 == 0) for i in range(100)]
    (folder / "served.jsonl").write_text("".join(served))
    files = ("--task", "task.py", "--reference", "ref.jsonl", "--fresh", "served.jsonl")
    done = recipe_folder.apart("drift", *files, "--state", "drift.json", "--json", cwd=folder)
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    expected = json.loads((folder / "result.json").read_text())
    assert result["new_rows"] == 100, "the 200 rows of before were counted again"
    assert result["verdict"] == expected["verdict"] == "retrain"
    for now, before in zip(result["watched"], expected["watched"], strict=True):
        ids = [[row["id"] for row in signal["rows"]] for signal in (now, before)]
        assert (now["name"], ids[0]) == (before["name"], ids[1])
        assert (now["e"], now["highest_e"]) == pytest.approx((before["e"], before["highest_e"]))
        assert now["difference"] == pytest.approx(before["difference"])
