"""What `offapi grade --traces` takes: every layout of rows, and labels with their documents."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offapi import cli
from offapi.data.traces import read
from offapi.teachers.labels_file import Label
from offapi.teachers.teacher import Usage

TASK = """
import offapi
from offapi import checks

task = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
    checks={"json": (checks.is_json, 1.0), "source": (checks.in_source, 1.0)},
    match={"total": "number"},
)
"""
ROWS: list[dict[str, Any]] = [
    {"id": number, "document": f"Sum: {number}.50", "recorded_label": {"total": number + 0.5}}
    for number in range(1, 4)
]
DOCUMENTS = [
    {"id": row["id"], "document": row["document"], "gold": row["recorded_label"]} for row in ROWS
]
LAYOUTS: dict[str, Callable[[Any], bytes]] = {
    "lines": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    "array": lambda rows: json.dumps(rows, indent=1).encode(),
    "objects": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows).encode(),
    "gzip": lambda rows: gzip.compress("\n".join(map(json.dumps, rows)).encode()),
    "utf-16": lambda rows: "\n".join(map(json.dumps, rows)).encode("utf-16"),
}  # fmt: skip


def grade(
    folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, list[dict[str, Any]]]:
    """Grade `folder`/traces.jsonl; return the exit code, what was said and the graded rows."""
    (folder / "task.py").write_text(TASK)
    out = folder / "out/graded.jsonl"
    named = [f"--task={folder}/task.py", f"--traces={folder}/traces.jsonl", f"--out={out}"]
    code = cli.run(["grade", *named, *options])
    said = capsys.readouterr()
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    assert {path.name for path in folder.glob("out/*")} <= {"graded.jsonl"}
    return code, said.err + said.out, rows


def labels(*rows: tuple[str, str, str]) -> bytes:
    """Return a labels file with these ids, answers and teachers; without an answer it failed."""
    return b"".join(
        Label(id, output, "ok" if output else "failed", Usage(1, 1), 0.1, teacher, "p").line()
        for id, output, teacher in rows
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    (tmp_path / "traces.jsonl").write_bytes(LAYOUTS[layout](ROWS))
    code, said, rows = grade(tmp_path, capsys)
    assert code == 0, said
    assert [(row["id"], row["grade"]["score"]) for row in rows] == [(1, 1.0), (2, 1.0), (3, 1.0)]


@pytest.mark.parametrize(
    ("layout", "place"), [("array", ", element 2"), ("objects", ", line 8"), ("gzip", ", line 2")]
)
def test_a_bad_row_is_named_in_the_file_that_was_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str, place: str
) -> None:
    bad = {**ROWS[1], "recorded_label": 7}
    (tmp_path / "traces.jsonl").write_bytes(LAYOUTS[layout]([ROWS[0], bad]))
    code, said, rows = grade(tmp_path, capsys)
    assert (code, rows) == (1, [])
    assert f"traces.jsonl{place}, field 'recorded_label'" in said


def test_nan_in_another_field_of_a_row_becomes_null(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({**ROWS[0], "note": float("nan"), "grade": {"score": 0.1}})
    (tmp_path / "traces.jsonl").write_text(line + "\n" + json.dumps(ROWS[1]))
    code, said, rows = grade(tmp_path, capsys)
    assert code == 0, said
    assert [row["grade"]["score"] for row in rows] == [1.0, 1.0]
    assert rows[0]["note"] is None


def test_documents_without_an_answer_are_named_as_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for layout in LAYOUTS.values():
        (tmp_path / "traces.jsonl").write_bytes(layout([*DOCUMENTS, {"id": "x", "document": "y"}]))
        code, said, rows = grade(tmp_path, capsys)
        assert (code, rows) == (1, [])
        assert "the file has 4 documents, 3 with gold, and no model's answer." in said
        assert "name this file as --gold" in said


def test_labels_are_graded_with_their_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [("1", '{"total": 1.5}', "a"), ("2", '{"total": 9}', "a"), ("3", "", "a")]
    (tmp_path / "traces.jsonl").write_bytes(labels(*answers, ("1", '{"total": 2}', "b")))
    (tmp_path / "d.json").write_text(json.dumps(DOCUMENTS))
    code, said, rows = grade(tmp_path, capsys, f"--documents={tmp_path}/d.json")
    assert code == 0, said
    scores = {row["id"]: row["grade"].get("score") for row in rows}
    assert scores == {"1-1": 1.0, "2": 0.5, "3": None, "1-2": 0.5}
    assert "by gold on 3 rows" in said
    assert [row.group for row in read(tmp_path / "out/graded.jsonl")] == ["1", "2", "3", "1"]
    assert read(tmp_path / "out/graded.jsonl")[0].document == "Sum: 1.50"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "the file holds labels: answers without their documents"),
        (["--documents={}/few.jsonl"], "2 labels without a document there, first '2'"),
    ],
)
def test_labels_without_documents_say_what_to_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    (tmp_path / "traces.jsonl").write_bytes(labels(*((str(i), "{}", "a") for i in (1, 2, 3))))
    (tmp_path / "few.jsonl").write_text(json.dumps(DOCUMENTS[0]))
    code, told, rows = grade(tmp_path, capsys, *(each.format(tmp_path) for each in options))
    assert (code, rows) == (1, [])
    assert said in told
    assert "document" in told.split("next:")[1]


def test_other_files_than_labels_take_no_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "traces.jsonl").write_bytes(LAYOUTS["lines"](ROWS))
    code, said, _ = grade(tmp_path, capsys, f"--documents={tmp_path}/traces.jsonl")
    assert code == 2
    assert "only a labels file needs the documents it answers" in said
