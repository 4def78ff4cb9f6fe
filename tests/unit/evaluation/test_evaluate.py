"""Answers stored in a file for the next time, with and without a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from offapi.data.documents import Document
from offapi.demo.task import task
from offapi.evaluation.evaluate import AnswersFile, Questions
from offapi.evaluation.predict import Predictions

GOLD = {"vendor": "A", "date": "2026-01-02", "total": 1.5}
ROWS = [Document("a", "invoice a", GOLD), Document("b", "invoice b", GOLD)]
ANSWERS = Predictions((task.answer_text(GOLD), "no JSON"), (False, False), 20, 10, 3.0)
COST = {"prompt_tokens": 10.0, "completion_tokens": 5.0, "seconds": 1.5}


@pytest.mark.parametrize("key", [None, {"model": "m", "adapter": None}])
def test_answers_that_were_kept_are_read_back(tmp_path: Path, key: dict[str, Any] | None) -> None:
    file = AnswersFile(tmp_path / "answers.jsonl", key)
    assert file.read() is None
    made = file.write(Questions(task, tmp_path, ROWS), ANSWERS)
    assert file.read() == made
    assert (made.report.all_fields.mean, made.cost, made.path) == (0.5, COST, file.path)
    note = orjson.loads((tmp_path / "answers.json").read_bytes())
    assert (note if key is None else note["cost"]) == COST
    file.path.unlink()
    assert file.read() is None


def test_answers_with_another_key_or_changed_are_not_reused(tmp_path: Path) -> None:
    file = AnswersFile(tmp_path / "answers.jsonl", {"shots": 0})
    file.write(Questions(task, tmp_path, ROWS), ANSWERS)
    assert AnswersFile(file.path, {"shots": 4}).read() is None
    file.path.write_bytes(file.path.read_bytes().replace(b"no JSON", b"no json"))
    assert file.read() is None


def test_a_damaged_note_is_ignored(tmp_path: Path) -> None:
    file = AnswersFile(tmp_path / "answers.jsonl")
    file.write(Questions(task, tmp_path, ROWS), ANSWERS)
    (tmp_path / "answers.json").write_bytes(b"{")
    assert file.read() is None
