"""The report's section on confidence: tables, charts, and a promise that was withdrawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from offapi.calibrate.fit import ReviewedAnswer, fit_promise
from offapi.confidence import promise
from offapi.confidence.promise import WHOLE, AnswersFrom, Promise
from offapi.confidence.signals import FieldSignals
from offapi.report.confidence import confidence_section
from offapi.report.run_files import read_record
from offapi.report.write import write_page
from offapi.training.run import Run


def calibrated(folder: Path) -> Run:
    """Return a run with a calibration of 200 drawn answers."""
    draw = np.random.default_rng(0)
    answers = []
    for i in range(200):
        ease = float(draw.normal())
        signals = FieldSignals(
            sum_logprob=-float(np.exp(-ease)), mean_logprob=-0.1, least_logprob=-0.2, margin=ease
        )
        right = bool(draw.random() < 1 / (1 + np.exp(-3 - 2 * ease)))
        answers.append(ReviewedAnswer(str(i), {"total": signals}, {"total": right}))
    fitted = fit_promise(answers, 0.1, 0.05)
    run = Run.create(folder, "run", {"config": {"recipe": "sft"}})
    made = Promise(
        made_for=AnswersFrom("b", "a", "t", "source"),
        error=0.1,
        delta=0.05,
        fields=fitted.fields,
        whole=fitted.whole,
        made=promise.now(),
        data={},
        quality=fitted.quality(),
    )
    promise.write(run.path / promise.FILE, made)
    return run


def test_a_calibrated_run_has_tables_and_charts(tmp_path: Path) -> None:
    run = calibrated(tmp_path)
    section = confidence_section(read_record(run.path))
    assert section is not None
    assert [row[0] for row in section.tables[0].rows] == ["total", WHOLE]
    reliability, curve = section.charts
    assert [len(one.points) for one in reliability.series] == [5, 5]
    wrong = [y for _, y in curve.series[0].points if y is not None]
    assert len(wrong) == 10
    assert wrong[0] <= wrong[-1]
    for name, as_markdown in (("page.html", False), ("page.md", True)):
        write_page([run.path], tmp_path / name, as_markdown=as_markdown)
        text = (tmp_path / name).read_text()
        assert "Share accepted" in text
        assert "Promise: of the accepted answers" in text


def test_a_withdrawn_promise_comes_first(tmp_path: Path) -> None:
    run = calibrated(tmp_path)
    promise.withdraw(run.path / promise.FILE, "total: 9 of 50 accepted answers are wrong")
    section = confidence_section(read_record(run.path))
    assert section is not None
    assert section.lines[0].startswith("The promise was withdrawn on")


def test_other_runs_have_no_section(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "run", {"config": {"recipe": "sft"}})
    assert confidence_section(read_record(run.path)) is None
    (run.path / promise.FILE).write_text("{}")
    assert confidence_section(read_record(run.path)) is None
