"""Scores: figures checked by hand, the exact shape that is printed, and rows of predictions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.data import documents, traces
from offapi.data.documents import Document
from offapi.data.traces import Trace
from offapi.demo.task import task
from offapi.errors import DataError, RunError
from offapi.evaluation import accuracy, test_set
from offapi.evaluation.accuracy import (
    Interval,
    make_predictions,
    recorded_predictions,
    score_predictions,
)
from offapi.evaluation.sampled_accuracy import score_samples
from offapi.files.hashing import sha256_path
from offapi.training import run as runs
from offapi.training.run import Run

GOLD = {"vendor": "Acme Ltd", "date": "2026-04-02", "total": 128.5}
RIGHT = '{"vendor":"ACME LTD","date":"2026-04-02","total":128.50}'
ROWS = [Document(str(i), "text", GOLD) for i in range(4)]
OUTPUTS = [RIGHT, RIGHT.replace("-02", "-03"), RIGHT.replace("128.50", "120.0"), "Sure: " + RIGHT]


def test_the_interval_is_wilsons() -> None:
    found = Interval.of([True] * 45 + [False] * 5)
    assert found.mean == 0.9
    assert (round(found.low, 3), round(found.high, 3)) == (
        0.786,
        0.957,
    )  # 45 of 50, published example
    assert Interval.of([False] * 10).low == 0.0
    assert found.percent() == "90.0 [78.6–95.7]"


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_agrees_with_its_formula(sample: tuple[int, int]) -> None:
    k, n = sample
    z, p = 1.959963984540054, k / n
    centre, half = (p + z * z / (2 * n)), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = Interval.of([True] * k + [False] * (n - k))
    assert found.low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-9)
    assert found.high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-9)


def test_fields_rows_and_their_means() -> None:
    report = score_predictions(task, ROWS, OUTPUTS)
    assert {name: field.mean for name, field in report.fields.items()} == {
        "vendor": 0.75,
        "date": 0.5,
        "total": 0.5,
    }
    assert report.mean == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    assert report.all_fields.mean == 0.25
    assert report.n == 4


def test_documents_of_one_group_are_one_observation() -> None:
    chat = ({"role": "user", "content": "text"}, {"role": "assistant", "content": ""})
    rows = [Trace(str(i), chat, group=f"talk {i // 50}", gold=GOLD) for i in range(100)]
    report = score_predictions(task, rows, [RIGHT] * 50 + [OUTPUTS[1]] * 50)
    assert report.fields["date"] == report.all_fields
    assert report.all_fields.low < 0.01 < 0.99 < report.all_fields.high
    assert report.fields["vendor"] == Interval.of([True] * 2)
    assert dict(report.table())["documents"] == "100 in 2 groups"


def test_what_is_printed_has_exactly_this_shape() -> None:
    found = score_predictions(task, ROWS, OUTPUTS).as_dict()
    assert list(found) == ["n", "mean", "all_fields", "fields", "answers", "nulls"]
    assert found["nulls"]["date"] == {
        "right": 2, "null_right": 0, "wrong": 1, "invented": 0, "missed": 0, "unread": 1
    }  # fmt: skip
    assert list(found["all_fields"]) == ["mean", "low", "high"]
    unusable = {"text around a JSON object": 1}
    assert found["answers"] == {"answers": 4, "aside": {}, "unusable": unusable}
    assert list(found["fields"]) == ["vendor", "date", "total"]
    assert all(list(interval) == ["mean", "low", "high"] for interval in found["fields"].values())
    assert json.loads(json.dumps(found)) == found


def test_predictions_are_rows_of_jsonl() -> None:
    report = score_predictions(task, ROWS, OUTPUTS)
    rows = [json.loads(line) for line in report.jsonl().splitlines()]
    keys = ["id", "output", "value", "correct", "gold"]
    assert [list(row) for row in rows] == [*[keys] * 3, [*keys, "forms"]]
    assert rows[1]["correct"] == {"vendor": True, "date": False, "total": True}
    assert rows[3] == {
        "id": "3",
        "output": OUTPUTS[3],
        "value": None,
        "correct": {"vendor": False, "date": False, "total": False},
        "gold": GOLD,
        "forms": ["text around a JSON object"],
    }


def test_people_get_percents() -> None:
    table = dict(score_predictions(task, ROWS, OUTPUTS).table())
    assert list(table) == [
        "vendor",
        "date",
        "total",
        "all fields",
        "mean of the fields",
        "documents",
    ]
    assert table["vendor"].startswith("75.0 [")
    assert table["mean of the fields"] == "58.3"


def test_what_cannot_be_scored_is_an_error_naming_the_document() -> None:
    for gold in (
        None,
        {"vendor": "A", "total": 1},
        {**GOLD, "date": "2 April"},
        {**GOLD, "total": "128.50"},
    ):
        with pytest.raises(DataError) as caught:
            make_predictions(task, [replace(ROWS[2], gold=gold)], [RIGHT])
        assert "'2'" in caught.value.where
        assert caught.value.next_step
    with pytest.raises(DataError, match="no documents"):
        score_predictions(task, [], [])
    with pytest.raises(ValueError, match="shorter"):
        score_predictions(task, ROWS, OUTPUTS[:3])


def test_thinking_before_an_answer_is_not_part_of_it() -> None:
    found = make_predictions(task, ROWS[:1], ["<think>hm, {}</think>\n" + RIGHT])
    assert all(found[0].correct.values())
    assert found[0].output.startswith("<think>"), "the output is kept as it came"


# predictions files


def written(path: Path, rows: list[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_predictions_file_gives_back_what_was_written(tmp_path: Path) -> None:
    made = make_predictions(task, ROWS, OUTPUTS)
    made[1] = replace(made[1], group="talk")
    path = tmp_path / "p.jsonl"
    path.write_bytes(accuracy.predictions_jsonl(made))
    assert accuracy.read_predictions(path) == made
    path.write_bytes(accuracy.predictions_jsonl([replace(made[0], sample=i) for i in range(3)]))
    assert [row.sample for row in accuracy.read_predictions(path)] == [0, 1, 2]


LINE = {
    "id": "a",
    "output": "{}",
    "value": {},
    "correct": {"vendor": True},
    "gold": {"vendor": "A"},
}
BAD = {
    "id": "b",
    "output": 3,
    "value": [1],
    "correct": {"vendor": 1},
    "gold": None,
    "group": 4,
    "sample": True,
}


@pytest.mark.parametrize("field", BAD)
def test_a_wrong_line_of_a_predictions_file_is_named(tmp_path: Path, field: str) -> None:
    second = {**LINE, "id": "b", field: BAD[field]} if field != "id" else {**LINE, "id": "a"}
    with pytest.raises(DataError) as caught:
        accuracy.read_predictions(written(tmp_path / "p.jsonl", [LINE, second]))
    assert f"p.jsonl, line 2, field '{field}" in caught.value.where
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {**LINE, "id": "b", "correct": {"total": True}},
            "scored on total, the rows before on vendor",
        ),
        ({**LINE, "id": "b", "correct": {}}, "no field was scored"),
        ({"id": "b", "document": "text"}, "'correct' is missing"),
        ({**LINE, "id": 3}, "'id' must be a string"),
    ],
)
def test_an_invalid_predictions_file_is_refused(
    tmp_path: Path, row: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        accuracy.read_predictions(written(tmp_path / "p.jsonl", [LINE, row]))
    assert "line 2" in caught.value.where


# recorded answers


def test_recorded_answers_are_scored_and_missing_ones_named() -> None:
    rows = [replace(ROWS[0], recorded_label=json.loads(RIGHT)), ROWS[1]]
    found, missing = recorded_predictions(task, rows)
    assert [all(row.correct.values()) for row in found] == [True, False]
    assert found[0].output == task.answer_text(GOLD | {"vendor": "ACME LTD"})
    assert (found[1].value, missing) == (None, ["1"])
    with pytest.raises(DataError, match="no document has a recorded answer"):
        recorded_predictions(task, ROWS)


def test_a_traces_last_turn_is_its_recorded_answer() -> None:
    chat = ({"role": "user", "content": "read"}, {"role": "assistant", "content": RIGHT})
    found, missing = recorded_predictions(task, [Trace("t", chat, gold=GOLD, group="talk")])
    assert all(found[0].correct.values())
    assert (found[0].group, missing) == ("talk", [])


# several samples a document


def test_passes_of_samples() -> None:
    """One document is right in 1 of 4 samples, one in 4 of 4."""
    wrong = OUTPUTS[1]
    found = score_samples(
        task, ROWS[:2], [RIGHT, wrong, wrong, "", *[RIGHT] * 4], samples=4, temperature=0.7
    )
    assert {k: one.mean for k, one in found.pass_any.items()} == {1: 0.625, 2: 0.75, 4: 1.0}
    assert {k: one.mean for k, one in found.pass_all.items()} == {1: 0.625, 2: 0.5, 4: 0.5}
    assert {name: one.mean for name, one in found.fields.items()} == {
        "vendor": 0.875,
        "date": 0.625,
        "total": 0.875,
    }
    assert found.all_fields == found.pass_any[1]
    assert found.mean == pytest.approx((0.875 + 0.625 + 0.875) / 3)
    assert [(row.id, row.sample) for row in found.predictions[3:5]] == [("0", 3), ("1", 0)]


def test_samples_of_one_document_are_one_observation() -> None:
    """A hundred samples of three documents show little more than three documents do."""
    outputs = [RIGHT] * 200 + [OUTPUTS[1]] * 100
    found = score_samples(task, ROWS[:3], outputs, samples=100, temperature=1.0)
    assert found.fields["date"].low <= 1 / 3
    assert found.fields["date"].high == 1.0
    alike = score_samples(task, ROWS[:3], [RIGHT] * 300, samples=100, temperature=1.0)
    assert alike.fields["date"] == Interval.of([True] * 3)


def test_what_is_printed_of_samples() -> None:
    report = score_samples(task, ROWS[:2], [RIGHT] * 6, samples=3, temperature=0.7)
    found = json.loads(json.dumps(report.as_dict()))
    assert list(found)[:4] == ["n", "mean", "all_fields", "fields"]
    assert (found["n"], found["samples"], found["temperature"]) == (2, 3, 0.7)
    assert list(found["pass@k"]) == list(found["pass^k"]) == ["1", "2", "3"]
    assert len(report.jsonl().splitlines()) == 6
    table = dict(report.table())
    assert table["documents"] == "2, 3 samples each at temperature 0.7"
    assert table["pass@2: one of 2 all right"].startswith("100.0 [")
    with pytest.raises(DataError, match="no documents"):
        score_samples(task, [], [], 3, 0.7)


# what a model is scored on


def test_documents_and_traces_are_distinguished(tmp_path: Path) -> None:
    chat = ({"role": "user", "content": "read"}, {"role": "assistant", "content": "old"})
    traces.write(tmp_path / "t.jsonl", [Trace("t", chat, gold=GOLD)])
    documents.write(tmp_path / "d.jsonl", ROWS)
    assert test_set.read(tmp_path / "t.jsonl", task) == [Trace("t", chat, gold=GOLD)]
    assert test_set.read(tmp_path / "d.jsonl", task, limit=2) == ROWS[:2]


@pytest.mark.parametrize("gold", [None, {**GOLD, "date": "2 April"}, {"vendor": "A"}])
def test_wrong_gold_is_named_with_its_line(tmp_path: Path, gold: Mapping[str, Any] | None) -> None:
    documents.write(tmp_path / "d.jsonl", [ROWS[0], replace(ROWS[1], gold=gold)])
    with pytest.raises(DataError, match="gold") as caught:
        test_set.read(tmp_path / "d.jsonl", task)
    assert caught.value.where.endswith("d.jsonl, line 2, document '1', field 'gold'")
    assert test_set.read(tmp_path / "d.jsonl", task, limit=1), "a row that is not used may be wrong"


# counting how often a test set was scored


def test_scorings_are_counted_by_content_and_kept(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "a", {"seed": 0})
    documents.write(tmp_path / "d.jsonl", ROWS)
    documents.write(tmp_path / "other.jsonl", ROWS[:2])
    with run.lock():
        assert test_set.count_scoring(run, tmp_path / "d.jsonl", 4) == 1
    assert test_set.count_scoring(run, tmp_path / "other.jsonl", 2) == 1
    (tmp_path / "d.jsonl").rename(tmp_path / "renamed.jsonl")
    assert test_set.count_scoring(run, tmp_path / "renamed.jsonl", 4) == 2
    manifest = run.manifest
    assert [entry["n"] for entry in manifest["scored"]] == [4, 2, 4]
    assert manifest["scored"][0]["data"] == sha256_path(tmp_path / "renamed.jsonl")
    assert len(manifest["attempts"]) == 1, "a scoring is not an attempt"
    with run.lock():
        assert run.resume({"seed": 0}) is None, "nor does it keep the run from resuming"
    assert run.manifest["scored"] == manifest["scored"]


def test_a_run_that_is_being_written_is_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path, "a", {})
    imports = "import time; from offapi.training.run import Run; from pathlib import Path"
    hold = f"{imports}\nwith Run.open(Path({str(run.path)!r}))"
    code = f"{hold}.lock():\n    print('held', flush=True)\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr(runs, "SECONDS_TO_WAIT", 0.2)
        with pytest.raises(RunError, match=f"being written by process {other.pid}"):
            run.count_scoring("00", 1)
        other.kill()
    monkeypatch.setattr(runs, "SECONDS_TO_WAIT", 10.0)
    assert run.count_scoring("00", 1) == 1


def test_the_run_of_an_adapter(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "runs", "a", {})
    for inside in ("adapter", "checkpoints/step-000010"):
        assert test_set.run_of(run.path / inside) == run
    (tmp_path / "link").symlink_to(run.path / "adapter")
    assert test_set.run_of(tmp_path / "link") == run
    assert test_set.run_of(tmp_path / "elsewhere" / "adapter") is None
    assert test_set.scoring_sentence(1).startswith(
        "This test set has now been scored once for this run"
    )
    assert "scored 3 times" in test_set.scoring_sentence(3)
