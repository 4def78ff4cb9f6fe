"""The demo, in a smaller size, on the real model and on both backends."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from offapi import adapter
from offapi.cli.output import Output
from offapi.demo import answers as demo_arm
from offapi.demo import generate
from offapi.demo import run as demo_run
from offapi.demo.answers import Exam
from offapi.demo.run import RESULT, Sizes, open_folder, run_demo
from offapi.demo.task import task
from offapi.errors import RunError
from offapi.evaluation.evaluate import Questions
from offapi.evaluation.predict import Predictions
from offapi.models.store import Model
from offapi.training.run import Run

SMALL = Sizes(train=4, val=1, test=2, epochs=1.0)  # one step: what is learned is not the point


def counted(monkeypatch: pytest.MonkeyPatch, predict: Callable[..., Predictions]) -> list[int]:
    """Record the worked examples of every arm that is asked from here on, by `predict`."""
    asked: list[int] = []

    def noted(*arguments: Any) -> Predictions:
        asked.append(arguments[-1])
        return predict(*arguments)

    monkeypatch.setattr(demo_arm, "predict", noted)
    return asked


def test_from_model_to_student(
    tmp_path: Path, demo_model: Model, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = counted(monkeypatch, demo_arm.predict)
    with monkeypatch.context() as patch:
        patch.setattr(demo_run, "distil", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_demo(backend_name, tmp_path, SMALL, Output(json=True))
    outcome = run_demo(backend_name, tmp_path, SMALL, Output(json=True))
    assert asked == [0, len(task.examples), 0], (
        "base and teacher are asked once, whatever happens later"
    )
    result = outcome.as_dict()
    assert list(result) == ["base", "teacher", "student", "run"]
    assert result["base"]["mean"] < 0.1 < result["teacher"]["mean"]
    for name in ("base", "teacher", "student"):
        assert set(result[name]) == {"n", "mean", "all_fields", "fields", "answers", "nulls"}
        assert all(sum(each.values()) == SMALL.test for each in result[name]["nulls"].values())
        assert result[name]["n"] == SMALL.test
        assert set(result[name]["fields"]) == {"vendor", "date", "total"}
        assert all(
            0 <= i["low"] <= i["mean"] <= i["high"] <= 1 for i in result[name]["fields"].values()
        )
    assert (
        outcome.arms["student"].cost["prompt_tokens"]
        < 0.3 * outcome.arms["teacher"].cost["prompt_tokens"]
    )
    folder = Path(result["run"])
    assert orjson.loads((folder / RESULT).read_bytes()) == result
    _, matrices = adapter.read(folder / "adapter")
    assert any(abs(matrix).max() > 0 for name, matrix in matrices.items() if "lora_B" in name)
    labels = (folder / "labels.jsonl").read_bytes().splitlines()
    assert len(labels) == SMALL.train
    assert (
        open_folder(tmp_path, folder.name, {})[0].path.name == f"{folder.name}-2"
    )  # a finished one is left alone


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_answers_are_reused_where_nothing_they_depend_on_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = list(generate.generate("test", 2, 0))
    said = [task.answer_text(rows[0].gold or {}), "no JSON"]
    asked = counted(
        monkeypatch, lambda *arguments: Predictions(tuple(said), (False, False), 20, 10, 3.0)
    )
    backend: Any = None
    folder, out = Run.create(tmp_path, "demo", {}), Output(json=True)
    questions = Questions(task, folder.path / "test.jsonl", rows)
    exam = Exam(folder.path, questions, {"model": "m", "test": "t"})
    with folder.lock():
        first = exam.sit(backend, backend, "base", 0, out)
        assert exam.sit(backend, backend, "base", 0, out) == first
        assert (first.report.all_fields.mean, first.cost["seconds"], len(asked)) == (0.5, 1.5, 1)
        assert exam.file("teacher", 0).read() is None
        assert exam.file("base", 4).read() is None
        assert exam.file("base", 0, adapter="a").read() is None
        assert replace(exam, key={"model": "other", "test": "t"}).file("base", 0).read() is None
        exam.sit(backend, backend, "base", 0, out, adapter="a")
        assert exam.file("base", 0).read() is None
        answers = folder.path / "predictions-base.jsonl"
        answers.write_bytes(answers.read_bytes().replace(b"no JSON", b"no json"))
        assert exam.file("base", 0, adapter="a").read() is None
    assert asked == [0, 0]


def test_an_unfinished_demo_is_not_resumed_as_another(tmp_path: Path) -> None:
    first, _ = open_folder(tmp_path, "demo", {"demo": asdict(SMALL)})
    again, resume = open_folder(tmp_path, "demo", {"demo": asdict(SMALL)})
    assert resume
    assert again == first
    with again.lock(), pytest.raises(RunError, match=r"demo\.seed was 0"):
        again.resume({"demo": asdict(replace(SMALL, seed=1))})
