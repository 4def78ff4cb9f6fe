"""Wilson's interval against SciPy's, and against the equation that it solves."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from offapi.stats.interval import Z95, Interval, wilson

SMALL = settings(max_examples=100, deadline=None)


def test_a_rate_of_a_million_documents() -> None:
    interval = wilson(970_000, 1_000_000)
    assert interval.high - interval.low == pytest.approx(
        2 * 1.96 * sqrt(0.97 * 0.03 / 1e6), rel=1e-3
    )
    assert Interval(-0.031, -0.1, 0.0).points() == "-3.1 [-10.0 to +0.0]"


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@SMALL
def test_wilson_equals_scipys_to_the_last_bit(case: tuple[int, int]) -> None:
    right, of = case
    bounds = stats.binomtest(right, of).proportion_ci(method="wilson")
    assert wilson(right, of) == Interval(right / of, float(bounds.low), float(bounds.high))


@given(st.floats(0, 1), st.floats(0.5, 1e6))
@SMALL
def test_wilson_of_a_fractional_count_solves_its_equation(rate: float, of: float) -> None:
    """At both ends the rate lies `Z95` standard errors away."""
    interval = wilson(rate * of, of)
    assert 0 <= interval.low <= interval.mean + 1e-12
    assert interval.mean - 1e-12 <= interval.high <= 1
    for end in (interval.low, interval.high):
        squared = Z95**2 * end * (1 - end) / of
        assert (interval.mean - end) ** 2 == pytest.approx(squared, rel=1e-6, abs=1e-12)
