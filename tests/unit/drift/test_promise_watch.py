"""A promise is watched on reviewed answers: kept where it is kept, withdrawn aloud where not."""

from __future__ import annotations

from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from offapi.confidence import promise
from offapi.confidence.model import by_logprob
from offapi.confidence.promise import WHOLE, AcceptedFrom, AnswersFrom, FieldPromise, Promise
from offapi.drift import sequential_test
from offapi.drift.promise_watch import highest_e, watch_promise
from offapi.drift.sequential_test import BLOCK
from offapi.errors import DataError, RunError
from offapi.training.run import Run

ALL = AcceptedFrom(at=0.0, documents=300, accepted=300, wrong=0)
TASK = """
from offapi import Task
from offapi.checks import is_json
task = Task(
    name="receipts", instructions="Read.", checks={"json": (is_json, 1.0)},
    schema={"type": "object", "properties": {"date": {"type": "string"},
            "total": {"type": ["number", "null"]}}},
    match={"date": "date", "total": "number"},
)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a calibrated run that promises 5%."""
    (tmp_path / "task.py").write_text(TASK)
    run = Run.create(tmp_path, "run", {"config": {"task": str(tmp_path / "task.py")}})
    known = FieldPromise(by_logprob(), ALL, ALL)
    made = Promise(
        made_for=AnswersFrom("b", "a", "t", "source"),
        error=0.05,
        delta=0.05,
        fields={"date": known, "total": known},
        whole=ALL,
        made=promise.now(),
        data={},
    )
    promise.write(run.path / promise.FILE, made)
    return run


def row(id: int, *, right: bool = True, accepted: bool = True) -> dict[str, Any]:
    """Return a reviewed answer, whose total is right or not, and accepted or not."""
    values: dict[str, Any] = {"date": "2026-11-28", "total": 4.5 if right else 5.4}
    fields = {}
    for name, value in values.items():
        taken = accepted or name == "date"
        fields[name] = {"value": value, "confidence": 0.9, "evidence": None, "accepted": taken}
    gold = {**values, "total": 4.5}
    return {"id": str(id), "answer": values, "fields": fields, "accepted": accepted, "gold": gold}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to a file."""
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in rows))
    return path


def test_a_kept_promise_stays(run: Run, tmp_path: Path) -> None:
    rows = [row(i, right=i % 30 != 0) for i in range(300)]
    report = watch_promise(run, write_rows(tmp_path / "reviewed.jsonl", rows))
    assert report.kept
    assert [(each.name, each.accepted, each.wrong) for each in report.findings] == [
        ("date", 300, 0),
        ("total", 300, 10),
        (WHOLE, 300, 10),
    ]
    assert report.headline() == "KEPT: 300 reviewed answers do not contradict the promise."
    assert promise.read(run.path / promise.FILE).withdrawn is None


def test_a_broken_promise_is_withdrawn_for_good(run: Run, tmp_path: Path) -> None:
    rows = [row(i, right=i % 5 != 0) for i in range(300)]
    report = watch_promise(run, write_rows(tmp_path / "reviewed.jsonl", rows))
    assert not report.kept
    gone = promise.read(run.path / promise.FILE).withdrawn
    assert gone is not None
    assert "total: 60 of 300 accepted answers are wrong" in gone.why
    assert gone.why.endswith("5.0% was promised")
    assert "date" not in gone.why
    assert "accepts nothing now" in report.headline()
    fine = write_rows(tmp_path / "later.jsonl", [row(i) for i in range(300)])
    assert not watch_promise(run, fine).kept


def test_wrong_answers_that_were_not_accepted_do_not_count(run: Run, tmp_path: Path) -> None:
    rows = [row(i, right=False, accepted=False) for i in range(300)]
    report = watch_promise(run, write_rows(tmp_path / "reviewed.jsonl", rows))
    assert report.kept
    assert [each.accepted for each in report.findings] == [300, 0, 0]


def test_a_document_counts_once_and_only_with_gold(run: Run, tmp_path: Path) -> None:
    unseen = [{**row(i), "gold": None} for i in range(10, 20)]
    rows = [*[row(1, right=False)] * 50, *unseen]
    report = watch_promise(run, write_rows(tmp_path / "reviewed.jsonl", rows))
    assert report.reviewed == 1
    with pytest.raises(DataError, match="no row has gold"):
        watch_promise(run, write_rows(tmp_path / "none.jsonl", unseen))


def test_a_run_without_calibration_is_refused(run: Run, tmp_path: Path) -> None:
    (run.path / promise.FILE).unlink()
    with pytest.raises(RunError, match="not calibrated"):
        watch_promise(run, write_rows(tmp_path / "reviewed.jsonl", [row(1)]))


def test_a_promise_at_its_edge_is_seldom_withdrawn() -> None:
    """Of 300 streams of 1,000 rows at most a share of `delta` is withdrawn, but for chance."""
    draw = np.random.default_rng(0)
    streams = draw.random((300, 1000)) >= 0.05
    withdrawn = sum(highest_e(list(stream), 0.05) >= log(1 / 0.05) for stream in streams)
    assert withdrawn <= 24


def test_twice_the_errors_are_found() -> None:
    draw = np.random.default_rng(1)
    streams = draw.random((40, 1500)) >= 0.10
    found = sum(highest_e(list(stream), 0.05) >= log(4 / 0.05) for stream in streams)
    assert found >= 36


def test_an_e_value_against_a_stated_mean_by_hand() -> None:
    test = sequential_test.against_mean(np.array([0.95]))
    bets = sequential_test.Bets.start(test)
    values = np.ones((BLOCK, 1))
    values[:5] = 0.0
    bets = sequential_test.after(test, bets, values)
    assert bets.wealth == pytest.approx(np.zeros_like(bets.wealth))  # no bet before any row
    mean = (20 + 25 * 0.95) / 50
    variance = max(mean - mean**2, 0.95 * 0.05)
    bet = (0.95 - mean) / (variance + (0.95 - mean) ** 2)
    after = sequential_test.log_e(test, bets, np.zeros((1, 1)))
    assert exp(after[0]) == pytest.approx(1 + bet * 0.95, rel=0.02)
