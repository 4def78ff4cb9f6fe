"""What is learned is checked before anything is written: the answers, and that none is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import recipe_folder

TASK = """
import offapi
from offapi.checks import is_json

task = offapi.Task(
    name="receipts",
    instructions="Read the receipt.",
    schema={
        "type": "object",
        "properties": {
            "shop": {"type": "string"},
            "day": {"type": ["string", "null"], "format": "date"},
            "total": {"type": "number"},
        },
        "required": ["shop", "day", "total"],
    },
    checks={"json": (is_json, 1.0)},
    match={"shop": "text", "total": "number"},
)
"""
RIGHT = {"shop": "Ash", "day": None, "total": 5}


def receipts(folder: Path, *golds: Any) -> Path:
    """Lay out a run whose rows 3 and on have the gold `golds`."""
    recipe = recipe_folder.lay_out(folder)
    (folder / "task.py").write_text(TASK)
    for name, start in (("train", 0), ("val", 50)):
        rows = [
            {"id": f"{name}-{i}", "document": f"Ash {start + i} {'thanks ' * i}", "gold": RIGHT}
            for i in range(6)
        ]
        for row, gold in zip(rows[2:], golds if name == "train" else (), strict=False):
            row["gold"] = gold
        recipe_folder.write_jsonl(folder / f"{name}.jsonl", rows)
    return recipe


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ({}, "gold is empty."),
        ({"total": 5, "day": None}, "gold field 'shop' is missing"),
        ({"shop": "Ash", "total": 5}, 'gold does not fit the schema: "day" is a required property'),
        ({**RIGHT, "currency": "EUR"}, "gold has the field 'currency', which is not in the schema"),
        ({**RIGHT, "total": "5"}, "gold field 'total' must be a number or null, got '5'"),
        ({**RIGHT, "day": "03/04/2024"}, "field gold.day does not fit the schema"),
        ({**RIGHT, "day": 5}, "field gold.day does not fit the schema"),
        ("Ash", "gold must be an object with the fields of task 'receipts'"),
    ],
)
def test_gold_that_must_not_be_learned_is_named_with_its_line(
    tmp_path: Path, gold: Any, words: str
) -> None:
    done = recipe_folder.offapi("train", str(receipts(tmp_path, gold, RIGHT, gold)))
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert f"document 'train-2': {words}" in said
    assert f"{tmp_path / 'train.jsonl'}, line 3, field 'gold'" in said
    assert "(1 more row with such a mistake)" in said
    assert not (tmp_path / "runs").exists()


def test_recorded_labels_are_checked_as_gold_is(tmp_path: Path) -> None:
    recipe = receipts(tmp_path)
    row = {"id": "a", "document": "Ash 5", "recorded_label": {**RIGHT, "total": None}}
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", [row])
    done = recipe_folder.offapi("train", str(recipe), "--set", "learn=recorded_label")
    assert done.returncode == 1
    assert "field recorded_label.total does not fit the schema" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["sft", "distill", "filtered_sft"])
def test_a_val_that_is_the_training_file_is_refused(tmp_path: Path, name: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path, name, teacher="recorded")
    text = recipe.read_text().replace('val = "val.jsonl"', 'val = "train.jsonl"')
    if name != "distill":
        text = text.replace('teacher = "recorded"\n', "")
    if name == "filtered_sft":
        text = text.replace('data = "train.jsonl"', 'traces = "train.jsonl"')
    recipe.write_text(text)
    done = recipe_folder.offapi("train", str(recipe))
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "it is the same file as val" in said
    assert "the score would show memory, not skill" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["sft", "distill"])
def test_rows_that_repeat_a_scored_document_are_not_learned(tmp_path: Path, name: str) -> None:
    options = {"teacher": "recorded"} if name == "distill" else {}
    recipe = recipe_folder.lay_out(tmp_path, name, epochs=1.0, batch_size=1, **options)
    rows = recipe_folder.rows(10)
    long = "Receipt 17: from Asha, on the 4th of May, with many thanks for 12.50, come again soon"
    rows[2]["document"] = long
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", rows)
    scored = [{**rows[5], "id": "v0"}, {**rows[2], "id": "v1", "document": long.upper() + " !"}]
    recipe_folder.write_jsonl(tmp_path / "val.jsonl", scored)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    assert (
        "Dropped 2 of 10 rows that repeat, or nearly repeat, a document of val: d2, d5."
        in " ".join(done.stderr.split())
    )
    run = tmp_path / "runs" / name
    assert len(recipe_folder.metrics(run)) == 8
    if name == "distill":
        assert len((run / "labels.jsonl").read_bytes().splitlines()) == 8


def test_chats_that_repeat_a_scored_document_are_not_learned(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, epochs=1.0, batch_size=1, learn="chats")
    rows = recipe_folder.rows(6)
    chats = [
        {
            "id": row["id"],
            "messages": [
                {"role": "user", "content": row["document"]},
                {"role": "assistant", "content": "Yes."},
            ],
        }
        for row in rows
    ]
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", chats)
    recipe_folder.write_jsonl(tmp_path / "val.jsonl", [{**rows[5], "id": "v0"}])
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    assert len(recipe_folder.metrics(tmp_path / "runs" / "sft")) == 5


def test_kept_answers_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", 8, teacher="recorded")
    task = tmp_path / "task.py"
    task.write_text(task.read_text().replace('"schema": (fits_schema, 1.0), ', ""))
    rows = recipe_folder.rows(8)
    rows[4]["recorded_label"]["town"] = "Ash"
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", rows)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "1 of 8 kept answers does not fit the task and will be learned all the same" in said
    assert "answer has the field 'town', which is not in the schema (shop)." in said
