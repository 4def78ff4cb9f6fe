"""Nulls counted apart, the items of lists, the fields of objects: in eval, its file and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

import offapi
from offapi.checks import is_json
from offapi.cli.eval import _show_details
from offapi.cli.output import Output
from offapi.data.documents import Document
from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.field_details import ItemScore, NullCounts
from offapi.evaluation.sampled_accuracy import score_samples
from offapi.files import jsonl
from offapi.report.accuracy import accuracy_chart, accuracy_rates
from offapi.report.run_files import Answers, Record

ADDRESS = {"type": "object", "properties": {"city": {"type": "string"}, "code": {}}}
TASK = offapi.Task(
    name="t",
    instructions="Read.",
    schema={
        "type": "object",
        "properties": {
            "vendor": {"type": ["string", "null"]},
            "lines": {"type": "array"},
            "address": ADDRESS,
        },
    },
    checks={"json": (is_json, 1.0)},
    match={"vendor": "text", "lines": "list", "address": "object"},
)
CASES: list[tuple[Any, dict[str, Any]]] = [
    (
        {"vendor": "Acme", "lines": ["tea"], "address": {"city": "Lyon", "code": 7}},
        {"vendor": "ACME", "lines": ["Tea", "rye"], "address": {"city": "Lyon", "code": 8}},
    ),
    ({"vendor": "Bar"}, {"vendor": None, "lines": [], "address": None}),
    ({"vendor": None, "lines": ["x"]}, {"vendor": "Foo", "lines": ["x"], "address": {"city": "A"}}),
    ({"vendor": None, "lines": []}, {"vendor": None, "lines": None, "address": {}}),
    ({"vendor": "Foo", "address": []}, {"vendor": "Fox", "lines": ["y"], "address": {"city": "B"}}),
    ("no object", {"vendor": None, "lines": ["z"], "address": {"city": "C"}}),
]
ROWS = [Document(str(i), "text", gold) for i, (_, gold) in enumerate(CASES)]
OUTPUTS = [one if isinstance(one, str) else orjson.dumps(one).decode() for one, _ in CASES]


@pytest.fixture
def report() -> Report:
    return score_predictions(TASK, ROWS, OUTPUTS)


def test_nulls_are_counted_apart(report: Report) -> None:
    assert report.details.nulls["vendor"] == NullCounts(
        right=1, null_right=1, wrong=1, invented=1, missed=1, unread=1
    )
    assert report.details.nulls["lines"] == NullCounts(
        right=1, null_right=0, wrong=1, invented=1, missed=2, unread=1
    )
    assert all(sum(vars(n).values()) == len(ROWS) for n in report.details.nulls.values())
    assert report.fields["vendor"].mean == 2 / 6


def test_a_list_counts_by_its_items(report: Report) -> None:
    # shared 1 + 0 + 1, answered 1 + 0 + 1, in gold 2 + 0 + 1 + 0 + 1 + 1
    assert report.details.items == {"lines": ItemScore(f1=2 * 2 / 7, precision=1.0, recall=2 / 5)}
    assert report.details.items["lines"].percent() == "F1 57.1 (precision 100.0, recall 40.0)"
    assert ItemScore(None, None, None).percent() == "F1 — (precision —, recall —)"


def test_an_object_counts_by_its_fields(report: Report) -> None:
    inside = report.details.parts["address"]
    assert list(inside) == ["city", "code"]
    assert inside["city"].mean == 3 / 6  # Lyon, and two documents that have none
    assert inside["code"].mean == 4 / 6  # not 7 for 8, and not the answer that was not read
    assert report.fields["address"].mean == 1 / 6


def test_the_object_for_programs_holds_the_details(report: Report) -> None:
    found = report.as_dict()
    assert found["nulls"]["vendor"]["invented"] == 1
    assert found["items"]["lines"]["recall"] == 0.4
    assert found["inside"]["address"]["city"]["mean"] == 0.5


def test_predictions_keep_the_details(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(report.jsonl())
    assert Report.of(accuracy.read_predictions(path)) == report
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert rows[0]["inside"] == {"lines": [1, 1, 2], "address": {"city": True, "code": False}}


def test_predictions_of_version_0_1_0_have_nulls_only(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [orjson.loads(line) for line in report.jsonl().splitlines()]
    old = ("id", "output", "value", "correct", "gold")
    path.write_bytes(b"".join(jsonl.line({key: row[key] for key in old}) for row in rows))
    read = Report.of(accuracy.read_predictions(path))
    assert read.details.nulls == report.details.nulls
    assert (read.details.items, read.details.parts) == ({}, {})
    assert read.fields == report.fields


def test_a_strange_file_does_not_break_the_page(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [orjson.loads(line) for line in report.jsonl().splitlines()]
    strange = {"lines": ["a", 1, 2], "address": {"city": 3}, "vendor": 5}
    path.write_bytes(b"".join(jsonl.line({**row, "inside": strange}) for row in rows))
    read = Report.of(accuracy.read_predictions(path))
    assert (read.details.items, read.details.parts) == ({}, {})


def printed(report: Any, capsys: pytest.CaptureFixture[str]) -> str:
    _show_details(report, Output(plain=True))
    return capsys.readouterr().err


def test_people_see_the_details_in_80_columns(
    report: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(report, capsys)
    lines = [line.split() for line in text.splitlines()]
    assert ["vendor", "1", "1", "2", "1", "1"] in lines  # the unread answer is wrong
    assert "lines[]" in text
    assert "F1 57.1 (precision 100.0, recall 40.0)" in text
    assert any(line.startswith("address.city") for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 80
    sampled = score_samples(TASK, ROWS[:1], OUTPUTS[:2], 2, 1.0)
    assert "lines[]" in printed(sampled, capsys)


def test_without_nulls_and_lists_nothing_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    task = offapi.Task(
        "t", "Read.", schema={"type": "object", "properties": {"a": {}}},
        checks={"json": (is_json, 1.0)}, match={"a": "text"},
    )  # fmt: skip
    plain = score_predictions(task, [Document("1", "x", {"a": "b"})], ['{"a":"c"}'])
    assert printed(plain, capsys) == ""
    assert "items" not in plain.as_dict()
    assert "inside" not in plain.predictions[0].as_row()


def test_the_page_has_the_details(report: Report) -> None:
    answers = Answers("run", report.predictions)
    record = Record("run", Path("run"), {}, (), (), {}, answers=(), looks=())
    chart = accuracy_chart(accuracy_rates(record, [answers]))
    assert chart is not None
    inside, nulls = chart.details
    assert inside.head == ("inside lists and objects", "run")
    assert inside.rows[0] == ("lines[]", "F1 57.1 (precision 100.0, recall 40.0)")
    assert nulls.title == "Nulls: run"
    assert ("vendor", "1", "1", "2", "1", "1") in nulls.rows
