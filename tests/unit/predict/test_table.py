"""A table of answers: one row a document, and nothing in it that a spreadsheet would run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from offapi.predict.prediction import DocumentAnswer, FieldAnswer
from offapi.predict.table import write_table


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_one_row_a_document(tmp_path: Path) -> None:
    fields = {
        "vendor": FieldAnswer('A "B", C', 0.98765, (0, 3), accepted=True),
        "total": FieldAnswer(-12.5, 0.5, accepted=False),
        "lines": FieldAnswer([{"n": 1}]),
    }
    answers = [
        DocumentAnswer("d1", {"vendor": "x"}, fields, accepted=False),
        DocumentAnswer("d2", None, error="too long for the model: 9."),
    ]
    write_table(tmp_path / "a.csv", ["vendor", "total", "lines"], answers)
    head, first, second = read(tmp_path / "a.csv")
    assert head[:4] == ["id", "vendor", "vendor confidence", "vendor accepted"]
    assert first == [
        *("d1", 'A "B", C', "0.9877", "yes", "-12.5", "0.5", "no"),
        *('[{"n":1}]', "", "", "no", ""),
    ]
    assert second == ["d2", *[""] * 10, "too long for the model: 9."]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_no_text_is_a_formula(tmp_path: Path, text: str) -> None:
    answer = DocumentAnswer(text, {"a": text}, {"a": FieldAnswer(text)}, error=text)
    write_table(tmp_path / "a.csv", ["a"], [answer])
    row = read(tmp_path / "a.csv")[1]
    assert [row[0], row[1], row[-1]] == [f"'{text}"] * 3
