"""Scores: figures checked by hand, the exact shape that is printed, and rows of predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.data.documents import Document
from offapi.demo.task import task
from offapi.errors import DataError
from offapi.evaluate import Interval, predictions, score_predictions

GOLD = {"vendor": "Acme Ltd", "date": "2026-04-02", "total": 128.5}
RIGHT = '{"vendor":"ACME LTD","date":"2026-04-02","total":128.50}'
ROWS = [Document(str(i), "text", GOLD) for i in range(4)]
OUTPUTS = [RIGHT, RIGHT.replace("-02", "-03"), RIGHT.replace("128.50", "120.0"), "Sure: " + RIGHT]


def test_the_interval_is_wilsons() -> None:
    found = Interval.of([True] * 45 + [False] * 5)
    assert found.mean == 0.9
    assert (round(found.low, 3), round(found.high, 3)) == (0.786, 0.957)  # 45 of 50, published example
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
    assert {name: field.mean for name, field in report.fields.items()} == {"vendor": 0.75, "date": 0.5, "total": 0.5}
    assert report.mean == pytest.approx((0.75 + 0.5 + 0.5) / 3)
    assert report.all_fields.mean == 0.25
    assert report.n == 4


def test_what_is_printed_has_exactly_this_shape() -> None:
    found = score_predictions(task, ROWS, OUTPUTS).as_dict()
    assert list(found) == ["n", "mean", "all_fields", "fields"]
    assert list(found["all_fields"]) == ["mean", "low", "high"]
    assert list(found["fields"]) == ["vendor", "date", "total"]
    assert all(list(interval) == ["mean", "low", "high"] for interval in found["fields"].values())
    assert json.loads(json.dumps(found)) == found


def test_predictions_are_rows_of_jsonl() -> None:
    report = score_predictions(task, ROWS, OUTPUTS)
    rows = [json.loads(line) for line in report.jsonl().splitlines()]
    assert [list(row) for row in rows] == [["id", "output", "value", "correct", "gold"]] * 4
    assert rows[1]["correct"] == {"vendor": True, "date": False, "total": True}
    assert rows[3] == {
        "id": "3",
        "output": OUTPUTS[3],
        "value": None,
        "correct": {"vendor": False, "date": False, "total": False},
        "gold": GOLD,
    }


def test_people_get_percents() -> None:
    table = dict(score_predictions(task, ROWS, OUTPUTS).table())
    assert list(table) == ["vendor", "date", "total", "all fields", "mean of the fields", "documents"]
    assert table["vendor"].startswith("75.0 [")
    assert table["mean of the fields"] == "58.3"


def test_what_cannot_be_scored_is_an_error_naming_the_document() -> None:
    for gold in (None, {"vendor": "A", "total": 1}, {**GOLD, "date": "2 April"}, {**GOLD, "total": "128.50"}):
        with pytest.raises(DataError) as caught:
            predictions(task, [replace(ROWS[2], gold=gold)], [RIGHT])
        assert "'2'" in caught.value.where
        assert caught.value.next_step
    with pytest.raises(DataError, match="no documents"):
        score_predictions(task, [], [])
    with pytest.raises(ValueError, match="shorter"):
        score_predictions(task, ROWS, OUTPUTS[:3])
