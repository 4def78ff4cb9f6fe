"""The share to ask: the curve, and that the share it names holds as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from offapi.shadow.cascade import (
    Outcomes,
    cascade,
    lower_bound,
    share_as_good,
    share_for_quality,
    thresholds,
)

MARGIN = 0.05


def drawn(n: int, seed: int, frontier: float = 0.99) -> Outcomes:
    """Draw documents whose student is right with the probability that its certainty says."""
    draw = np.random.default_rng(seed)
    certainty = draw.beta(3, 1, n)
    student = draw.random(n) < certainty
    return Outcomes(certainty, student, draw.random(n) < frontier, [None] * n)


def true_quality(below: float, frontier: float = 0.99) -> float:
    """The quality of the cascade on documents without end, which `drawn` draws from."""
    certainty = np.random.default_rng(99).beta(3, 1, 100_000)
    return float(np.where(certainty < below, frontier, certainty).mean())


def seen_quality(outcomes: Outcomes, below: float) -> float:
    asked = outcomes.certainty < below
    return float(np.where(asked, outcomes.frontier, outcomes.student).mean())


def test_curve_goes_from_the_frontier_to_the_student() -> None:
    outcomes = Outcomes(
        np.array([0.1, 0.2, 0.3, 0.4]),
        np.array([False, False, True, True]),
        np.array([True, True, True, False]),
        [None] * 4,
    )
    points = cascade(outcomes)
    shown = [(point.asked, point.quality.mean, point.at_random) for point in points]
    assert shown == [
        (1.0, 0.75, 0.75), (0.75, 1.0, 0.6875), (0.5, 1.0, 0.625), (0.25, 0.75, 0.5625), (0.0, 0.5, 0.5),
    ]  # fmt: skip
    assert points[2].than_frontier.mean == 0.25


def test_documents_of_equal_certainty_are_asked_together() -> None:
    same = np.array([0.5] * 10)
    flags = np.ones(10, bool)
    points = cascade(Outcomes(same, flags, flags, [None] * 10))
    assert [point.asked for point in points] == [1.0, 0.0]


def test_lower_bound_is_exact_and_wider_where_documents_share_groups() -> None:
    right = np.array([True] * 59 + [False])
    assert lower_bound(np.ones(59, bool), [None] * 59) == pytest.approx(0.05 ** (1 / 59))
    alone = lower_bound(right, [None] * 60)
    assert lower_bound(right, [str(i // 6) for i in range(60)]) < alone


@pytest.mark.parametrize("wanted", [0.85, 0.93])
def test_the_share_holds_its_quality_at_the_stated_rate(wanted: float) -> None:
    """Over 300 draws, the share that was named is too small in 5% at most, but for chance."""
    needed = [share_for_quality(drawn(200, seed), wanted) for seed in range(300)]
    named = [each.point for each in needed if each.point is not None]
    missed = sum(true_quality(point.below) < wanted for point in named)
    assert missed <= 300 * 0.05 + 1.65 * (300 * 0.05 * 0.95) ** 0.5
    assert len(named) > 200
    assert np.mean([point.asked for point in named]) < 0.95  # and it is not merely careful


def test_the_share_that_looks_best_would_miss() -> None:
    """The control: the smallest share that reaches the quality on the same documents misses."""
    wanted, missed = 0.93, 0
    for seed in range(100):
        outcomes = drawn(200, seed)
        bounds = thresholds(outcomes.certainty)
        naive = min(below for below in bounds if seen_quality(outcomes, below) >= wanted)
        missed += true_quality(naive) < wanted
    assert missed > 25


def test_as_good_as_the_frontier_holds_at_the_stated_rate() -> None:
    missed = 0
    for seed in range(40):
        found = share_as_good(drawn(200, seed, 0.9), MARGIN).point
        missed += found is not None and true_quality(found.below, 0.9) < 0.9 - MARGIN
    assert missed <= 3


def test_testing_stops_at_the_first_share_that_fails() -> None:
    """Asking 90% passes, fewer fail, and none at all would pass again: that is not looked at."""
    rank = np.arange(400)
    student = (rank < 300) | (rank >= 360)
    needed = share_for_quality(Outcomes(rank / 400, student, rank >= 60, [None] * 400), 0.8)
    assert needed.point is not None
    assert needed.point.asked == pytest.approx(0.9)


def test_too_few_documents_are_said_with_how_many_would_do() -> None:
    needed = share_for_quality(drawn(30, 1), 0.95)
    assert needed.point is None
    assert needed.documents is not None
    assert needed.documents > 59  # what 0.95 takes if none is wrong


def test_a_quality_that_nobody_reaches_needs_no_number_of_documents() -> None:
    needed = share_for_quality(drawn(200, 1, frontier=0.7), 0.999)
    assert (needed.point, needed.documents) == (None, None)
    assert needed.best < 0.999
