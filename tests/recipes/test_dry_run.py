"""`offapi train --dry-run`: everything is read and checked, nothing is written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder
from recipe_folder import offapi


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def laid_out(folder: Path, name: str, **keys: Any) -> Path:
    """Lay out a run of any recipe."""
    options = {"teacher": "recorded"} if name == "distill" else {}
    recipe = recipe_folder.lay_out(folder, name, 8, **{**options, **keys})
    if name == "filtered_sft":
        text = recipe.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"')
        recipe.write_text(text)
    return recipe


@pytest.mark.parametrize("name", ["sft", "distill", "filtered_sft", "grpo"])
def test_it_says_what_a_run_takes_and_writes_nothing(
    tmp_path: Path, backend_name: str, name: str
) -> None:
    recipe = laid_out(tmp_path, name)
    before = files(tmp_path)
    done = offapi("train", str(recipe), "--backend", backend_name, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == before
    said = " ".join(done.stderr.split())
    steps = 16 if name == "filtered_sft" else 8  # two students of 8 rows, two epochs of 4 steps
    most = "at most " if name == "distill" else ""
    begun = f"{name} on {backend_name}: {most}8 rows to learn in {steps} steps, 4 documents to"
    assert begun in said
    assert "GiB of memory" in said
    assert "MiB of" in said
    assert "nothing was written" in said
    command = shlex.split(done.stderr.split("Begin: ")[1])
    assert command == ["offapi", "train", str(recipe), "--backend", backend_name]


def test_json_has_the_figures(tmp_path: Path) -> None:
    plan = recipe_folder.told(
        offapi("train", str(laid_out(tmp_path, "sft")), "--dry-run", "--json")
    )
    assert (plan["recipe"], plan["rows"], plan["scored"], plan["steps"]) == ("sft", 8, 4, 8)
    assert (plan["asked"], plan["max_tokens"]) == (0, 2048)
    assert 20 < plan["longest"] < 200
    assert 0 < plan["memory"] < plan["total"]
    assert 0 < plan["disk"] < plan["disk_free"]
    run = Path(recipe_folder.told(offapi("train", str(tmp_path / "sft.toml"), "--json"))["run"])
    assert str(run) == plan["run"]
    arrays = sum(path.stat().st_size for path in run.rglob("*.safetensors"))
    assert 0.5 * plan["disk"] < arrays < 1.2 * plan["disk"]


def test_a_local_teacher_is_to_be_asked_for_each_document(tmp_path: Path) -> None:
    recipe = laid_out(tmp_path, "distill")
    model = orjson.loads(recipe.read_text().split("model = ")[1].split("\n")[0])
    recipe.write_text(recipe.read_text().replace('"recorded"', f'"local:{model}"'))
    done = offapi("train", str(recipe), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "The teacher is asked for 8 documents first." in done.stderr
    scored = recipe_folder.rows(8)[7]
    recipe_folder.write_jsonl(tmp_path / "val.jsonl", [{**scored, "id": "v"}])
    done = offapi("train", str(recipe), "--dry-run")
    assert "The teacher is asked for 7 documents first." in done.stderr
    assert "Dropped 1 of 8 rows that repeat" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--set", "max_tokens=20"], "more than max_tokens = 20"),
        (["--set", "val=nowhere.jsonl"], "there is no such file"),
        (["--resume"], "--dry-run is for a run that has not begun"),
    ],
)
def test_what_would_stop_the_run_stops_the_dry_run(
    tmp_path: Path, change: list[str], words: str
) -> None:
    done = offapi("train", str(laid_out(tmp_path, "sft")), "--dry-run", *change)
    assert done.returncode in (1, 2)
    assert words in " ".join(done.stderr.split())


def test_wrong_gold_a_taken_name_and_no_val(tmp_path: Path) -> None:
    recipe = laid_out(tmp_path, "sft")
    recipe.write_text(recipe.read_text().replace('val = "val.jsonl"\n', ""))
    done = offapi("train", str(recipe), "--dry-run")
    assert "The recipe names no `val`, so the run ends without an accuracy." in done.stderr
    rows = recipe_folder.rows(3)
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", [*rows[:2], {**rows[2], "gold": {}}])
    done = offapi("train", str(recipe), "--dry-run")
    assert done.returncode == 1
    assert "train.jsonl, line 3, field 'gold'" in " ".join(done.stderr.split())
    (tmp_path / "runs" / "sft").mkdir(parents=True)
    taken = offapi("train", str(recipe), "--dry-run")
    assert "a run of that name exists already" in taken.stderr
