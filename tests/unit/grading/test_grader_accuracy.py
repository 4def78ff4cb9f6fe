"""Precision and recall of the grader at thresholds, from gold and from reviews."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offapi.errors import DataError
from offapi.grading import advice, table, truth
from offapi.grading.file.reviews import Reviews
from offapi.grading.grader_accuracy import agree, rate, thresholds
from offapi.stats.interval import wilson


def graded(scores: list[float], right: list[int] | None = None) -> table.Table:
    """Return a table of rows with these scores."""
    rows = np.zeros(len(scores), table.kind(1))
    rows["score"], rows["has_answer"] = scores, True
    rows["right"] = table.UNKNOWN if right is None else right
    rows["content"] = np.arange(len(scores)) + 1000
    return rows


@pytest.mark.parametrize(("right", "of"), [(0, 5), (45, 50), (50, 50), (1, 1)])
def test_an_unweighted_rate_is_wilsons(right: int, of: int) -> None:
    found, expected = rate(np.arange(of) < right), wilson(right, of)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx(
        (expected.mean, expected.low, expected.high), abs=1e-9
    )


def test_precision_and_recall_by_hand() -> None:
    score = np.array([1.0] * 10 + [0.75] * 10 + [0.5] * 10)
    right = np.array([True] * 9 + [False] + [True] * 6 + [False] * 4 + [True] * 3 + [False] * 7)
    found = agree(score, right, 0.9, "gold")
    assert [level.threshold for level in found.levels] == [0.5, 0.75, 1.0]
    assert [level.judged for level in found.levels] == [30, 20, 10]
    assert [level.precision.mean for level in found.levels if level.precision] == pytest.approx(
        [18 / 30, 15 / 20, 0.9]
    )
    assert [level.recall.mean for level in found.levels if level.recall] == pytest.approx(
        [1, 15 / 18, 9 / 18]
    )
    assert (found.threshold, found.certain) == (1.0, False)
    assert "but 10 rows with a known answer cannot confirm 90%" in found.lines()[0]


def test_what_is_recommended() -> None:
    score = np.repeat([1.0, 0.9], 200)
    right = np.arange(400) % 200 >= np.where(score == 1, 0, 60)
    sure = agree(score, right, 0.95, "gold")
    assert (sure.threshold, sure.certain) == (1.0, True)
    assert sure.lines()[0].endswith("so --threshold 1 gives the 95% you want.")
    both = agree(score, right, 0.84, "gold")  # 0.9 comes out at 0.85, but only 1 is sure to have it
    assert (both.threshold, both.certain) == (1.0, True)
    easy = agree(score, right, 0.7, "gold")
    assert (easy.threshold, easy.certain) == (0.9, True)
    none = agree(score, ~right, 0.95, "gold")
    assert (none.threshold, none.certain) == (None, False)
    assert "No threshold gives 95% right; the best is 0.9 with 15.0" in none.lines()[0]


def test_many_scores_use_a_grid_and_thresholds_round_down() -> None:
    assert thresholds(np.linspace(0, 1, 100)) == (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
    seventh = float(np.float64(5) / 7)
    assert thresholds(np.array([seventh, 0.57, 1.0])) == (0.57, 0.7142, 1.0)
    assert agree(np.array([seventh]), np.array([True]), 0.5, "gold").levels[0].judged == 1


def test_a_reviewed_row_stands_for_its_band_of_scores() -> None:
    rows = graded([1.0] * 900 + [0.6] * 100)
    answers = (
        dict.fromkeys(range(8), True) | {8: False, 9: False} | {900 + i: False for i in range(10)}
    )
    known = truth.from_reviews(rows, answers)
    assert known is not None
    everything = known.rate(np.ones(1000, bool))
    assert everything is not None
    assert everything.mean == pytest.approx(0.9 * 0.8)  # and not 8 of 20
    assert everything.low < 0.55, "twenty rows were looked at, not a thousand"
    found = agree(
        rows["score"][known.known],
        known.right[known.known],
        0.7,
        "review",
        known.weight[known.known],
    )
    assert [level.precision.mean for level in found.levels if level.precision] == pytest.approx(
        [0.72, 0.8]
    )


def test_an_unreviewed_band_leaves_the_figures_unknown() -> None:
    rows = graded([1.0] * 50 + [0.3] * 50)
    known = truth.from_reviews(rows, dict.fromkeys(range(10), True))
    assert known is not None
    found = agree(
        rows["score"][known.known],
        known.right[known.known],
        0.7,
        "review",
        known.weight[known.known],
        known.unseen,
    )
    assert found.levels[0].precision is not None
    assert found.levels[0].recall is None
    low = truth.from_reviews(rows, {90: True})
    assert low is not None
    assert (
        agree(np.array([0.3]), np.array([True]), 0.7, "review", None, low.unseen)
        .levels[0]
        .precision
        is None
    )


def test_gold_is_taken_where_there_is_some() -> None:
    assert truth.from_gold(graded([1.0])) is None
    known = truth.from_gold(graded([1.0, 1.0, 0.5], [1, -1, 0]))
    assert known is not None
    assert (known.known.tolist(), known.right.tolist()) == (
        [True, False, True],
        [True, False, False],
    )


def test_reviews_spread_over_the_scores_and_never_repeat(tmp_path: Path) -> None:
    rows = graded([1.0] * 500 + [0.85] * 20 + [0.6] * 3 + [float("nan")] * 5)
    reviews = Reviews.read(tmp_path / "reviews.jsonl")
    asked = reviews.wanted(rows, 15)
    bands = truth.bands(rows["score"])[asked].tolist()
    assert [bands.count(i) for i in (4, 2, 1)] == [6, 6, 3]
    assert asked == reviews.wanted(rows, 15)
    for row, right in zip(asked[:4], (True, False, None, True), strict=True):
        reviews = reviews.add(f"id {row}", int(rows["content"][row]), right)
    again = Reviews.read(tmp_path / "reviews.jsonl")
    assert again == reviews
    assert again.of(rows) == {asked[0]: True, asked[1]: False, asked[3]: True}
    more = again.wanted(rows, 15)
    assert len(more) == 12
    assert not set(more) & set(asked[:4])
    assert len(again.wanted(rows, 10_000)) == 523 - 4


def test_a_cut_off_review_is_dropped_and_an_invalid_one_named(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    Reviews.read(path).add("a", 5, True)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert Reviews.read(path).add("b", 6, None).answers == {5: True, 6: None}
    assert Reviews.read(path).answers == {5: True, 6: None}
    path.write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match="line 1: not a review"):
        Reviews.read(path)


def test_whether_there_are_enough_rows() -> None:
    assert "do not train on fewer than 50" in advice.enough(49, None)[0]
    assert "few" in advice.enough(50, None)[0]
    assert "enough to start" in advice.enough(200, None)[0]
    assert (
        "60 evaluation documents can detect a difference of 17.8 points"
        in advice.enough(200, 60)[1]
    )
    assert advice.ceiling(None, 0, 0) == []
    assert "--review 30" in advice.ceiling(None, 0, 5)[0]
