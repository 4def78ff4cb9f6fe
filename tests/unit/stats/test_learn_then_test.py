"""Thresholds with a promise, and the area under the ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from offapi.stats.auroc import auroc
from offapi.stats.learn_then_test import (
    accept_from,
    allowed_steps,
    documents_needed,
)


def test_the_fewest_documents_that_can_promise() -> None:
    assert documents_needed(0.05, 0.05) == 59
    assert documents_needed(0.01, 0.05) == 299
    assert allowed_steps(0.05, 0.05, 130) == (59, 93, 124)
    assert allowed_steps(0.05, 0.05, 58) == ()


@pytest.mark.parametrize("allowed", [0, 1, 5])
def test_each_step_allows_one_more_wrong_answer(allowed: int) -> None:
    step = allowed_steps(0.1, 0.02, 400)[allowed]
    assert binom.cdf(allowed, step, 0.1) <= 0.02 < binom.cdf(allowed, step - 1, 0.1)


def test_too_few_documents_accept_nothing() -> None:
    assert accept_from([0.9] * 58, [True] * 58, 0.05, 0.05).at is None
    tested = accept_from([0.9] * 59, [True] * 59, 0.05, 0.05)
    assert (tested.at, tested.accepted, tested.wrong) == (0.9, 59, 0)


def test_the_sequence_ends_at_the_first_threshold_that_fails() -> None:
    scores = np.linspace(0.999, 0.5, 200)
    right = np.ones(200, bool)
    right[[100, 101, 102, 103]] = False
    tested = accept_from(scores, right, 0.05, 0.05)
    assert (tested.accepted, tested.wrong) == (93, 0)
    assert tested.at == scores[92]


def test_a_likely_wrong_answer_among_the_surest_is_waited_for() -> None:
    scores = np.full(400, 0.98)
    scores[:200] += np.linspace(0.002, 0.001, 200)
    right = np.ones(400, bool)
    right[10] = False
    assert accept_from(scores, right, 0.05, 0.05).at == pytest.approx(0.98)


def test_equal_scores_are_accepted_together() -> None:
    right = np.ones(100, bool)
    right[90:] = False
    assert accept_from([0.7] * 100, right, 0.05, 0.05).at is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auroc_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores, right = [float(score) for score, _ in pairs], [flag for _, flag in pairs]
    found = auroc(scores, right)
    if all(right) or not any(right):
        assert found is None
        return
    assert found is not None
    assert found.mean == pytest.approx(roc_auc_score(right, scores))
    assert 0.0 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1.0


def test_the_interval_of_an_auroc_covers_it() -> None:
    draw = np.random.default_rng(0)
    truth, covered = 0.8556, 0  # of two normal distributions, 1.5 apart
    for _ in range(400):
        right = draw.random(120) < 0.75
        found = auroc(draw.normal(size=120) + 1.5 * right, right)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_without_overlap_the_interval_is_that_of_the_smaller_side() -> None:
    found = auroc([0.9, 0.8, 0.7, 0.1], [True, True, True, False])
    assert found is not None
    assert found.mean == 1.0
    assert found.low < 0.5
