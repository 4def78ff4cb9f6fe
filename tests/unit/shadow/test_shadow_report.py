"""Both answers graded alike: verdicts with gold, and what is said without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

import offapi
from offapi.checks import is_json, matches_gold
from offapi.confidence.signals import FieldSignals
from offapi.data.documents import Document
from offapi.data.rows import Row
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.predict.prediction import DocumentAnswer, FieldAnswer
from offapi.shadow import text
from offapi.shadow.pairs import ShadowPair, StudentAnswer, pair_answers
from offapi.shadow.report import ShadowReport
from offapi.shadow.requests import read_requests
from offapi.shadow.run import certainty_basis, student_answer

TASK = offapi.Task(
    name="totals",
    instructions="Read the total.",
    schema={
        "type": "object",
        "properties": {"shop": {"type": "string"}, "total": {"type": "number"}},
    },
    checks={"json": (is_json, 1.0), "gold": (matches_gold, 1.0)},
    match={"shop": "text", "total": "number"},
)
RIGHT = {"shop": "A", "total": 1}
WRONG = {"shop": "A", "total": 2}


def request(id: str, frontier: Mapping[str, Any], gold: Mapping[str, Any] | None = None) -> Row:
    """One recorded request: a document or, every other one, a trace."""
    if int(id) % 2:
        return Document(id, f"text {id}", gold, frontier)
    answer = {"role": "assistant", "content": orjson.dumps(frontier).decode()}
    return Trace(id, ({"role": "user", "content": f"text {id}"}, answer), gold=gold)


def report(
    rows: Sequence[Row], answers: Sequence[Mapping[str, Any] | None], **wanted: Any
) -> ShadowReport:
    students = {
        row.id: StudentAnswer(answer, certainty=float(at))
        for at, (row, answer) in enumerate(zip(rows, answers, strict=True))
    }
    settings = {"unanswered": 0, "margin": 0.05, "wanted": None, "basis": "log-probability"}
    return ShadowReport.of(pair_answers(TASK, rows, students), **{**settings, **wanted})


def test_without_gold_agreement_is_reported_and_no_verdict() -> None:
    rows = [request(str(i), RIGHT) for i in range(40)]
    answers = [None, *[WRONG] * 9, *[RIGHT] * 30]
    found = report(rows, answers, wanted=0.9)
    assert (found.verdict, found.gold, found.as_good, found.failed) == (
        "cannot be said", None, None, 1,
    )  # fmt: skip
    assert found.agree.mean == 0.75
    assert found.agreement["shop"].mean == 39 / 40
    assert found.points[0].quality.mean == 1.0  # the frontier agrees with itself
    assert found.for_quality is not None
    assert found.for_quality.point is not None
    assert found.for_quality.point.asked == 0.25
    said = " ".join(text.lines(found))
    assert "cannot be said without gold" in said
    assert "Agreement is not accuracy" in said
    assert "agreement with the frontier here" in said


@pytest.mark.parametrize(("wrong", "verdict"), [(0, "yes"), (60, "no"), (8, "too few documents")])
def test_the_verdict_by_gold(wrong: int, verdict: str) -> None:
    """Of 120 documents the frontier has 4 wrong, and the student `wrong` others."""
    rows = [request(str(i), WRONG if i < 4 else RIGHT, RIGHT) for i in range(120)]
    found = report(rows, [*[RIGHT] * 4, *[WRONG] * wrong, *[RIGHT] * (116 - wrong)])
    assert found.verdict == verdict
    assert text.table(found)[2][0] == "all fields"
    assert any(line.startswith("Can the student replace") for line in text.lines(found))


def test_gold_decides_where_it_is_known_and_agreement_counts_all() -> None:
    rows = [request(str(i), WRONG, RIGHT if i < 30 else None) for i in range(60)]
    found = report(rows, [RIGHT] * 30 + [WRONG] * 30)
    assert found.gold is not None
    assert (found.gold.n, found.n) == (30, 60)
    assert (found.gold.all_fields.a.mean, found.gold.all_fields.b.mean) == (1.0, 0.0)
    assert found.agree.mean == 0.5
    assert found.as_good is not None  # judged on the 30 alone
    assert len({point.asked for point in found.points}) > 10


def test_checks_that_need_gold_do_not_grade_requests_without() -> None:
    (pair,) = pair_answers(TASK, [request("1", RIGHT)], {"1": StudentAnswer(WRONG)})
    assert pair.scores == (1.0, 1.0)
    assert pair.gold is None


def test_certainty_prefers_a_calibration_then_agreement() -> None:
    def answer(confidence: float | None, agreement: bool | None) -> DocumentAnswer:
        signals = FieldSignals(
            sum_logprob=-0.5, mean_logprob=-0.1, least_logprob=-0.2, margin=1.0, agreement=agreement
        )
        fields = {name: FieldAnswer(1, confidence, signals=signals) for name in ("shop", "total")}
        return DocumentAnswer("x", {"shop": "A", "total": 1}, fields)

    calibrated, agreed, differed = answer(0.5, True), answer(None, True), answer(None, False)
    assert certainty_basis([calibrated]) == "confidence"
    assert student_answer(calibrated, "confidence").certainty == 0.25
    basis = certainty_basis([agreed, differed])
    assert basis == "agreement and log-probability"
    sure, unsure = (student_answer(each, basis).certainty for each in (agreed, differed))
    assert sure is not None
    assert unsure is not None
    assert sure > 2 > 1 > unsure
    assert certainty_basis([answer(None, None)]) == "log-probability"
    assert certainty_basis([DocumentAnswer("x", None, error="not JSON")]) is None


def test_gold_of_a_file_is_found_by_id_or_text(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "document": "one", "recorded_label": RIGHT},
        {"id": "b", "document": "two", "recorded_label": RIGHT},
        {"id": "c", "document": "three"},
    ]
    golds = [
        {"id": "a", "document": "other", "gold": RIGHT},
        {"id": "z", "document": "two", "gold": WRONG},
    ]
    for name, lines in (("rows", rows), ("gold", golds)):
        (tmp_path / name).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in lines))
    found = read_requests(tmp_path / "rows", tmp_path / "gold", TASK, None)
    assert [row.gold for row in found.rows] == [RIGHT, WRONG]
    assert found.unanswered == 1
    with pytest.raises(DataError, match="no row has a recorded answer"):
        read_requests(tmp_path / "gold", None, TASK, None)


def test_a_row_of_the_pairs_file_has_both_answers_and_what_is_right() -> None:
    pairs: list[ShadowPair] = pair_answers(
        TASK, [request("2", WRONG, RIGHT)], {"2": StudentAnswer(RIGHT, 0.9)}
    )
    assert pairs[0].as_row() == {
        "id": "2",
        "student": RIGHT,
        "frontier": WRONG,
        "agrees": {"shop": True, "total": False},
        "certainty": 0.9,
        "student_right": {"shop": True, "total": True},
        "frontier_right": {"shop": True, "total": False},
        "student_score": 1.0,
        "frontier_score": 1.0,
        "error": None,
    }
