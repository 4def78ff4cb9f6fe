"""The steps of a Ray pipeline without Ray: batches in, lines of offapi's files out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bigram_llama
import numpy as np
import orjson
import pytest

import offapi
from offapi.backend import Backend, load
from offapi.data.documents import Document
from offapi.errors import DataError
from offapi.model_spec import ModelSpec
from offapi.on_ray import GradeBatches, LabelBatches, PredictBatches
from offapi.on_ray.lines import read_lines
from offapi.teachers.labels_file import read_labels

TASK = """
import offapi
from offapi import checks
task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0), "gold": (checks.matches_gold, 1.0)},
    match={"total": "number"},
    max_answer_tokens=12,
)
"""
ANSWERS = {"1": ['{"total": ', "1.0}"], "2": ['{"total":', "2}"], "3": ["∞"]}


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    (tmp_path / "task.py").write_text(TASK)
    return str(tmp_path / "task.py")


def lines(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"text": np.array([orjson.dumps(row).decode() for row in rows], dtype=object)}


def test_labels_are_those_of_a_labels_file_and_the_model_is_loaded_once(
    task_file: str, tmp_path: Path, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def counted(name: str, spec: ModelSpec) -> Backend:
        loads.append(name)
        return load(name, spec)

    monkeypatch.setattr("offapi.teachers.local.load", counted)
    model = bigram_llama.write(tmp_path / "parrot", ANSWERS)
    step = LabelBatches(task_file, str(model), backend=backend_name)
    first = step(lines(*({"id": i, "document": f"Sum: {i}"} for i in (3, 2, 1))))
    asked = [{"role": "user", "content": "Sum: 2"}, {"role": "assistant", "content": "{}"}]
    second = step(lines({"id": "trace", "messages": asked}))

    out = tmp_path / "labels.jsonl"
    out.write_text("".join(f"{line}\n" for line in [*first["text"], *second["text"]]))
    labels = read_labels(out).labels
    assert [(label.id, label.status) for label in labels] == [
        ("3", "failed"), ("2", "ok"), ("1", "ok"), ("trace", "ok"),
    ]  # fmt: skip
    assert [label.output for label in labels[1:]] == [
        '{"total":2}',
        '{"total": 1.0}',
        '{"total":2}',
    ]
    assert loads == [backend_name]


def test_predictions_are_those_of_predict(
    task_file: str, tmp_path: Path, backend_name: str
) -> None:
    model = bigram_llama.write(tmp_path / "parrot", ANSWERS)
    step = PredictBatches(str(model), task=task_file, backend=backend_name, constrain="off")
    found = step(lines(*({"id": f"{i}", "document": f"Sum: {i}"} for i in (3, 2, 1))))["text"]
    with offapi.open(model, task_file, backend_name) as predictor:
        asked = [Document(f"{i}", f"Sum: {i}") for i in (3, 2, 1)]
        expected = [answer.as_row() for answer in predictor.predict(asked, constrain="off")]
    assert [orjson.loads(line) for line in found] == expected
    assert [row["answer"] for row in expected] == [None, {"total": 2}, {"total": 1.0}]


def test_graded_rows_keep_their_bytes_and_say_why_one_has_no_grade(task_file: str) -> None:
    right = (
        '{"id": "a",  "document": "Sum: 1", "recorded_label": {"total": 1}, "gold": {"total": 1}}'
    )
    wrong = right.replace('"a"', '"b"').replace('"gold": {"total": 1}', '"gold": {"total": 2}')
    empty = '{"id": "c", "document": "Sum: 1"}'
    graded = GradeBatches(task_file)({"text": [right, "", wrong, empty]})["text"]
    grades = [orjson.loads(line)["grade"] for line in graded]
    assert [grade.get("score") for grade in grades] == [1.0, 0.5, None]
    assert grades[2] == {"error": "there is no recorded answer"}
    assert graded[0].startswith(right[:-1])


def test_a_table_of_columns_is_read_like_lines() -> None:
    gold = np.array([{"total": np.float64(1.5)}, None], dtype=object)
    table = {"id": np.array([1, 2]), "document": np.array(["x", "y"], dtype=object), "gold": gold}
    assert read_lines(table) == [
        b'{"id":1,"document":"x","gold":{"total":1.5}}', b'{"id":2,"document":"y","gold":null}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        ({"words": ["x"]}, "no column 'text', only words"),
        ({"text": ["no"]}, "not JSON"),
        ({"text": ['{"id":"a","document":"x"}', '{"id":"a","document":"y"}']}, "already used"),
    ],
)
def test_what_is_no_batch_of_documents_is_refused(
    task_file: str, tmp_path: Path, batch: Any, what: str
) -> None:
    step = LabelBatches(task_file, str(bigram_llama.write(tmp_path / "parrot", ANSWERS)))
    with pytest.raises(DataError, match=what):
        step(batch)
