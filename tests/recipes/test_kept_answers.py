"""What recipes and commands do with the answers that a server kept: all of them read the folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder
from kept_answers import answer, keep

from offapi.data.captured_answer import CapturedAnswer
from offapi.data.captured_purge import Purge, purge

OTHER = {"to": "api.example.com", "model": "big", "failed": None}


def shops(count: int, first: int = 0, **more: Any) -> list[CapturedAnswer]:
    """Return right answers to the documents of `recipe_folder.rows`."""
    system = {"role": "system", "content": "Name the shop."}
    found = []
    for i, row in list(enumerate(recipe_folder.rows(24)))[first : first + count]:
        said = orjson.dumps(row["gold"]).decode()
        asked = (system, {"role": "user", "content": row["document"]})
        found.append(answer(i, said=said, messages=asked, **more))
    return found


def lay_out(folder: Path, *kept: CapturedAnswer, **keys: Any) -> Path:
    """Write a recipe that learns `folder`/kept, and return its file."""
    path = recipe_folder.lay_out(folder, "filtered_sft", control=False, **keys)
    path.write_text(path.read_text().replace('data = "train.jsonl"', 'traces = "kept"'))
    keep(folder / "kept", *kept)
    return path


def manifest(folder: Path) -> dict[str, Any]:
    name = "runs/filtered-sft/manifest.json"
    found: dict[str, Any] = orjson.loads((folder / name).read_bytes())
    return found


def test_a_run_is_resumed_with_the_rows_it_began_with(tmp_path: Path) -> None:
    path = lay_out(tmp_path, *shops(8), epochs=4.0, checkpoint_every=2)
    whole = recipe_folder.offapi("train", str(path), "--set", "name=whole")
    assert whole.returncode == 0, whole.stderr
    begun = recipe_folder.offapi("train", str(path))
    assert begun.returncode == 0, begun.stderr
    run = tmp_path / "runs/filtered-sft"
    for checkpoint in sorted((run / "checkpoints").iterdir())[-1:]:
        (checkpoint / "manifest.json").write_bytes(b"cut")  # as after a power cut
    keep(tmp_path / "kept", *shops(4, first=8))
    resumed = recipe_folder.offapi("train", str(path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert manifest(tmp_path)["config"]["traces"].endswith("kept@8")
    adapters = [(tmp_path / "runs" / name / "adapter/adapter_model.safetensors").read_bytes()
                for name in ("whole", "filtered-sft")]  # fmt: skip
    assert adapters[0] == adapters[1]
    purge(tmp_path / "kept", Purge(id="answer-3"))
    refused = recipe_folder.offapi("train", str(path), "--resume")
    assert refused.returncode == 1
    assert "sha256.traces was" in refused.stderr
    again = recipe_folder.offapi("train", str(path), "--set", "name=later")
    assert "11 rows" in again.stderr  # a run that begins now reads all that there is


def test_answers_of_another_model_are_learned_when_asked_for_alone(tmp_path: Path) -> None:
    cut = shops(1, first=7, finish="length")
    path = lay_out(tmp_path, *shops(4), *shops(3, first=4, escalated=OTHER), *cut, epochs=1.0)
    done = recipe_folder.offapi("train", str(path))
    assert done.returncode == 0, done.stderr
    assert "Left out 1 answer that the token limit cut off." in done.stderr
    assert "Left out 3 answers of another model (big): most providers' terms" in done.stderr
    grading = tmp_path / "runs/filtered-sft/grading.json"
    assert orjson.loads(grading.read_bytes())["rows"] == 4
    asked = recipe_folder.offapi(
        "train", str(path), "--set", "escalated=true", "--set", "name=asked"
    )
    assert asked.returncode == 0, asked.stderr
    grading = tmp_path / "runs/asked/grading.json"
    assert orjson.loads(grading.read_bytes())["rows"] == 7


def test_the_rule_holds_for_graded_copies_and_for_whole_chats(tmp_path: Path) -> None:
    path = lay_out(tmp_path, *shops(3), *shops(3, first=4, escalated=OTHER), epochs=1.0)
    graded = recipe_folder.offapi(
        "grade", "--task=task.py", "--traces=kept", "--kept=best.jsonl", cwd=tmp_path
    )
    assert graded.returncode == 0, graded.stderr
    for name in ("kept", "best.jsonl"):
        text = path.read_text().replace('recipe = "filtered_sft"', 'recipe = "sft"')
        text = text.replace('traces = "kept"', f'data = "{name}"\nlearn = "chats"')
        (tmp_path / "chats.toml").write_text(text.replace("control = false\n", ""))
        done = recipe_folder.offapi(
            "train", str(tmp_path / "chats.toml"), "--set", f"name={name[:4]}-chats"
        )
        assert done.returncode == 0, done.stderr
        assert "Left out 3 answers of another model (big)" in done.stderr
    rollouts = recipe_folder.lay_out(tmp_path, "grpo", epochs=1.0)
    refused = recipe_folder.offapi(
        "train", str(rollouts), "--rollouts", str(tmp_path / "best.jsonl")
    )
    assert refused.returncode == 1
    assert "is an answer of another model (big)" in refused.stderr


def test_a_task_folder_is_made_from_kept_answers(tmp_path: Path) -> None:
    keep(tmp_path / "kept", *shops(20), *shops(2, first=20, escalated=OTHER))
    done = recipe_folder.offapi("init", "new", "--from", "kept", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 rows left out: another model answered" in done.stderr
    rows = (tmp_path / "new/traces.jsonl").read_text()
    assert "answer-3" in rows or "answer-4" in rows
    assert "answer-21" not in rows


def test_drift_is_looked_for_in_kept_answers(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(recipe_folder.TASK)
    keep(tmp_path / "before", *shops(24))
    for count in (6, 12):
        keep(tmp_path / "kept", *(answer(100 + i, f"from Oak{i}, no {i}", '{"shop":"Oak"}')
                                  for i in range(count - 6, count)))  # fmt: skip
        words = ("--reference=before", "--fresh=kept", "--state=drift.json", "--json")
        found = recipe_folder.offapi("drift", "--task=task.py", *words, cwd=tmp_path)
        assert found.returncode in (0, 3), found.stderr
        assert orjson.loads(found.stdout)["new_rows"] == 6


def test_purge_as_a_command(tmp_path: Path) -> None:
    day = 86_400.0
    keep(tmp_path / "kept", *(answer(i, time=time.time() - i * day) for i in range(10)))
    for words, left in (
        (("--older-than=7.5",), 8),
        (("--before=2020-01-01",), 8),
        (("--id=answer-2",), 7),
        (("--all",), 0),
    ):
        done = recipe_folder.offapi("traces", "purge", "kept", *words, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert orjson.loads(done.stdout)["left"] == left
    for both in ((), ("--all", "--id=x")):
        done = recipe_folder.offapi("traces", "purge", "kept", *both, cwd=tmp_path)
        assert done.returncode == 2
        assert "Name one of --before" in done.stderr


@pytest.mark.parametrize("name", ["kept", "kept/traces.sqlite"])
def test_the_folder_and_its_file_are_the_same(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, *shops(6))
    done = recipe_folder.offapi(
        "grade", "--task=task.py", f"--traces={name}", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["rows"] == 6
