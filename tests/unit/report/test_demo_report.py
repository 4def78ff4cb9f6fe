"""The demo's report says what its console says: the test set, three systems, paired."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from offapi.demo import task as task_file
from offapi.demo.answers import Exam
from offapi.demo.generate import generate
from offapi.demo.run import Sizes, write_documents
from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import score_predictions
from offapi.evaluation.evaluate import Questions
from offapi.evaluation.predict import Predictions
from offapi.report.render import html, markdown
from offapi.report.story import make_story
from offapi.training.run import Run

SIZES = Sizes(train=4, val=2, test=6)
RIGHT = {"student": 5, "teacher": 3, "base": 0}  # of the test documents
TOKENS = {"student": 795, "teacher": 3399, "base": 795}  # of all prompts: 132.5 and 566.5 each
TASK = task_file.task


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A finished demo whose models were not asked: some answers are the gold, some are no JSON."""
    run = Run.create(tmp_path, "demo-torch", {"demo": asdict(SIZES)})
    with run.lock():
        write_documents(run, SIZES)
        rows = list(generate("test", SIZES.test, SIZES.seed))
        exam = Exam(run.path, Questions(TASK, run.path / "test.jsonl", rows), {"model": "m"})
        for name, right in RIGHT.items():
            said = [
                TASK.answer_text(row.gold or {}) if i < right else "none"
                for i, row in enumerate(rows)
            ]
            cut = (False,) * len(rows)
            answers = Predictions(tuple(said), cut, TOKENS[name], 60, 3.0)
            exam.file(name, 0).write(exam.questions, answers)
        val = list(generate("val", SIZES.val, SIZES.seed))
        own = score_predictions(TASK, val, ["none"] * SIZES.val)
        run.write("predictions.jsonl", own.jsonl())
        run.write("report.json", orjson.dumps(own.as_dict()))
    return run.path


def test_the_test_set_and_its_three_systems_come_first(demo: Path) -> None:
    story = make_story([demo])
    assert story.accuracy
    assert story.accuracy.table.head == ("field", "student", "teacher", "base")
    rows = {row[0]: row[1:] for row in story.accuracy.table.rows}
    assert rows["documents"] == ("6", "6", "6")
    assert rows["prompt tokens per document"] == ("132.5", "566.5", "132.5")
    shown = {figure.name: (figure.value, figure.note) for figure in story.figures}
    assert shown["all fields right, student"] == ("83.3%", "95% interval 44% to 97%")
    assert shown["all fields right, teacher"][0] == "50.0%"
    assert shown["prompt tokens"] == ("133", "student, per document; teacher: 567")
    assert "scored on 6 test documents" in story.lede
    assert not [note for note in story.notes if "not compared" in note.text]


def test_the_systems_are_compared_in_pairs(demo: Path) -> None:
    story = make_story([demo])
    assert [one.table.title for one in story.differences] == [
        "student against teacher",
        "student against base",
    ]
    assert [row[4:6] for row in story.differences[0].table.rows if row[0] == "all fields"] == [
        ("2", "0")
    ]


def test_the_documents_lie_in_the_runs_folder_wherever_it_is(demo: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(demo, tmp_path / "elsewhere"))
    found = make_story([moved]).samples
    assert found
    assert (found.systems, found.documents, found.total) == (
        ("student", "teacher", "base"),
        6,
        6,
    )
    assert found.notes == ()
    text = next(iter(generate("test", SIZES.test, SIZES.seed))).text
    assert found.rows[0].document == text


def test_a_demo_that_is_not_finished_shows_what_it_has(demo: Path) -> None:
    for file in demo.glob("predictions-student.*"):
        file.unlink()
    story = make_story([demo])
    assert [figure.name for figure in story.figures[:2]] == [
        "all fields right, teacher",
        "all fields right, base",
    ]
    for file in demo.glob("predictions-*"):
        file.unlink()
    story = make_story([demo])
    assert story.figures[0].note  # its validation answers, as of any run
    assert story.accuracy
    assert story.accuracy.table.head == ("field", "demo-torch")


def test_another_demo_is_named_after_its_run(demo: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(demo, tmp_path / "demo-mlx"))
    story = make_story([demo, other])
    assert story.accuracy
    assert story.accuracy.table.head[1:] == ("student", "teacher", "base", "demo-mlx, student")


def test_percentages_are_spaced_alike(demo: Path) -> None:
    story = make_story([demo])
    assert " %" not in html.render(story)
    assert " %" not in markdown.render(story)


def test_documents_of_a_moved_run_are_found_next_to_it(demo: Path, tmp_path: Path) -> None:
    """Any run, not a demo alone: the recorded path is gone, a file of its name is not."""
    home = tmp_path / "copied"
    run = Run.create(home / "runs", "sft", {"config": {"recipe": "sft", "val": "/gone/val.jsonl"}})
    with run.lock():
        val = list(generate("val", SIZES.val, SIZES.seed))
        answers = score_predictions(TASK, val, ["none"] * SIZES.val)
        run.write("predictions.jsonl", answers.jsonl())
    assert len(accuracy.read_predictions(run.path / "predictions.jsonl")) == SIZES.val
    alone = make_story([run.path]).samples
    assert alone
    assert alone.documents == 0
    assert "cannot be read" in alone.notes[0]
    shutil.copy(demo / "val.jsonl", home / "val.jsonl")
    found = make_story([run.path]).samples
    assert found
    assert (found.documents, found.notes) == (SIZES.val, ())
