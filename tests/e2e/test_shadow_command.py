"""`offapi shadow`: recorded requests through a model on both backends, resumed, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import pytest
from recipe_folder import apart

from offapi.data import documents
from offapi.data.documents import Document
from offapi.demo.generate import generate
from offapi.models import store

TASK = """
import offapi
from offapi import checks
task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0)},
    match={"total": "number"},
    max_answer_tokens=12,
)
"""
ANSWERS = {"1": ['{"total": ', "1.0}"], "2": ['{"total":', "2}"], "3": ["∞"]}
COUNT = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Requests that end in 1, 2 or 3; the frontier answered 1 to all, and gold is that number."""
    (tmp_path / "task.py").write_text(TASK)
    bigram_llama.write(tmp_path / "model", ANSWERS)
    ends = [i % 3 + 1 for i in range(COUNT)]
    rows = [
        Document(f"row {i}", f"{i} {end}", recorded_label={"total": 1})
        for i, end in enumerate(ends)
    ]
    documents.write(tmp_path / "requests.jsonl", rows)
    golds = [
        Document(row.id, row.text, gold={"total": end}) for row, end in zip(rows, ends, strict=True)
    ]
    documents.write(tmp_path / "gold.jsonl", golds)
    return tmp_path


def shadow(folder: Path, *more: object) -> dict[str, Any]:
    """Run the command and return its object."""
    ran = apart(
        "shadow", folder / "model", "--task", folder / "task.py", "--json", "--constrain", "off",
        "--traces", folder / "requests.jsonl", "--out", folder / "pairs.jsonl", *more,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_both_are_graded_alike_and_nothing_is_asked_twice(folder: Path, backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = shadow(folder, "--backend", backend)
    assert (found["verdict"], found["n"], found["failed"]) == ("cannot be said", COUNT, COUNT // 3)
    assert found["agree"]["mean"] == pytest.approx(1 / 3)

    answers = folder / "pairs.jsonl.answers.jsonl"
    before = answers.stat().st_mtime_ns
    gold = ("--gold", folder / "gold.jsonl", "--quality", 0.1)
    found = shadow(folder, "--backend", backend, *gold)
    assert answers.stat().st_mtime_ns == before
    fields = found["gold"]["fields"]["total"]
    assert (fields["a"]["mean"], fields["b"]["mean"]) == pytest.approx((2 / 3, 1 / 3))
    assert found["verdict"] == "yes"
    assert found["share_for_quality"]["point"]["asked"] == 0  # the student alone has two thirds
    assert found["curve"][0]["asked"] == 1
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"row {i}" for i in range(COUNT)]
    assert rows[1]["student_right"] == {"total": True}
    assert rows[1]["frontier_right"] == {"total": False}
    assert rows[2]["error"]


def test_the_demo_model_on_generated_documents(tmp_path: Path, demo_model: store.Model) -> None:
    """A frontier that is always right: agreeing with it and being right are the same."""
    rows = [replace(row, recorded_label=row.gold) for row in generate("val", 3)]
    documents.write(tmp_path / "requests.jsonl", rows)
    (tmp_path / "task.py").write_text("from offapi.demo.task import task\n")
    ran = apart(
        "shadow", demo_model.name, "--task", "task.py", "--traces", "requests.jsonl", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(ran.stdout)
    assert (found["n"], found["gold"]["n"], found["failed"]) == (3, 3, 0)
    assert found["agree"]["mean"] == found["gold"]["all_fields"]["a"]["mean"]
    assert found["gold"]["all_fields"]["b"]["mean"] == 1.0
    assert (
        found["certainty"] == "agreement and log-probability"
    )  # bound by the schema, and read freely too


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--out", "requests.jsonl"), "this command also reads that file"),
        (("--out", "nowhere/pairs.jsonl"), "the folder does not exist"),
        (("--traces", "gold.jsonl"), "no row has a recorded answer"),
        (("--gold", "requests.jsonl"), "no request has gold"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_model_runs(
    folder: Path, more: tuple[str, str], what: str
) -> None:
    name, value = more
    ran = apart(
        "shadow", "model", "--task", "task.py", "--traces", "requests.jsonl", name, value, cwd=folder
    )  # fmt: skip
    assert ran.returncode == 2 or ran.returncode == 1
    assert what in ran.stderr
    assert not (folder / "shadow.jsonl.answers.jsonl.part").exists()
