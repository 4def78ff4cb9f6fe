"""`--constrain` on the command line: bound answers are said to be, and are never mixed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from bound_answers import RECEIPT, byte_chat, task_of
from recipe_folder import offapi as run
from recipe_folder import write_jsonl

import offapi
from offapi.cli import constrain_option
from offapi.constrain import LEVELS, Constraints
from offapi.models.store import Model
from offapi.teachers.local import Local

TASK = """
import offapi
from offapi.checks import is_json

task = offapi.Task(
    name="receipts",
    instructions="Read it.",
    schema={
        "type": "object",
        "properties": {"vendor": {"type": "string"}, "total": {"type": "number"}},
        "required": ["vendor", "total"],
    },
    checks={"json": (is_json, 1.0)},
    match={"vendor": "text", "total": "number"},
    bind=offapi.quote("vendor"),
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "model").mkdir()
    byte_chat(tmp_path / "model")
    gold = {"vendor": "TIMES", "total": 12.37}
    rows = [
        {"id": "a", "document": RECEIPT, "gold": gold},
        {"id": "b", "document": "no number", "gold": gold},
    ]
    write_jsonl(tmp_path / "docs.jsonl", rows)
    return tmp_path


def test_the_options_levels_are_those_of_the_package() -> None:
    assert constrain_option.LEVELS == LEVELS


def test_eval_binds_answers_and_says_so(folder: Path) -> None:
    out = folder / "predictions.jsonl"
    done = run(
        "eval", "--task", str(folder / "task.py"), "--data", str(folder / "docs.jsonl"),
        "--model", str(folder / "model"), "--backend", "torch", "--constrain", "source",
        "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Answers were constrained: source." in done.stderr
    assert "1 of 2 documents prints nothing to read for total" in done.stderr
    answers = [orjson.loads(line)["output"] for line in out.read_bytes().splitlines()]
    first, second = map(orjson.loads, answers)
    assert first["vendor"] in " ".join(RECEIPT.split())
    assert second["vendor"] in "no number"


def test_label_keeps_levels_apart_and_refuses_endpoints(folder: Path) -> None:
    labels = folder / "labels.jsonl"
    common = ("label", "--task", str(folder / "task.py"), "--data", str(folder / "docs.jsonl"))
    teacher = ("--teacher", f"local:{folder / 'model'}", "--out", str(labels))
    for _ in range(2):  # the second asks nothing
        done = run(*common, *teacher, "--backend", "torch", "--constrain", "source")
        assert done.returncode == 0, done.stderr
    rows = [orjson.loads(line) for line in labels.read_bytes().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert all("constrain=source-" in row["teacher"] for row in rows)
    done = run(*common, *teacher, "--backend", "torch", "--constrain", "schema")
    assert len(labels.read_bytes().splitlines()) == 4
    url = ("--teacher", "http://127.0.0.1:9/v1", "--out", str(labels))
    done = run(*common, *url, "--constrain", "schema")
    assert done.returncode == 2
    assert "needs a local teacher" in done.stderr


def test_a_teachers_name_has_what_bounds_it(folder: Path) -> None:
    chat = byte_chat(folder / "model")
    (folder / "names.txt").write_text("Ace\n")
    bind: dict[str, Any] = {"vendor": offapi.one_of(folder / "names.txt")}
    tasks = [task_of(), task_of(bind=offapi.quote("vendor")), task_of(bind=bind)]
    keys = [Constraints.of(task, chat, "register").key for task in tasks]
    (folder / "names.txt").write_text("Bell\n")
    keys.append(Constraints.of(tasks[2], chat, "register").key)
    assert len(set(keys)) == 4
    model = Model("m", folder / "model")
    names = {Local(model, "torch", 9, constrain=(tasks[0], level)).name for level in LEVELS[1:]}
    assert len({*names, Local(model, "torch", 9).name}) == 4
