"""The curve through accuracies: it finds a known law and admits its limits; draws are nested."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offapi.compare.curve import run
from offapi.compare.curve.nested_samples import curve_sizes, nested_sample
from offapi.compare.curve.power_law import Law, Points, fit_curve, fit_law, search_law
from offapi.compare.curve.rows_needed import FAR, rows_needed
from offapi.errors import ConfigError, DataError

SIZES = (25, 50, 100, 200, 400)


def points(
    true: Law,
    sizes: tuple[int, ...] = SIZES,
    draws: int = 3,
    documents: int = 200,
    seed: int = 0,
    fixed: bool = True,
) -> Points:
    """Make points of documents whose difficulty is spread evenly (`fixed`) or drawn."""
    random = np.random.default_rng(seed)
    hard = (np.arange(documents) + 0.5) / documents if fixed else random.random(documents)
    rows, draw, right = [], [], []
    for d in range(draws):
        for size in sizes:
            luck = random.normal(0, 0.01)
            rows.append(size)
            draw.append(d)
            right.append(hard < true.at(size) + luck + random.normal(0, 0.03, documents))
    return Points(
        np.array(rows, float), np.array(draw), np.array(right, float), np.arange(documents)
    )


def test_an_exact_law_is_recovered() -> None:
    true = Law(0.92, 2.0, 0.6)
    n = np.array(SIZES, float)
    found = fit_law(n, np.array([true.at(size) for size in SIZES]), np.ones(len(n)))
    assert found.a == pytest.approx(true.a, abs=1e-3)
    assert found.b == pytest.approx(true.b, rel=0.02)
    assert found.c == pytest.approx(true.c, abs=5e-3)


def test_weights_decide_between_draws_that_disagree() -> None:
    n = np.array([*SIZES, *SIZES], float)
    one, other = Law(0.9, 2.0, 0.7), Law(0.6, 1.0, 0.7)
    accuracy = np.array([each.at(size) for each in (one, other) for size in SIZES])
    found = fit_law(n, accuracy, np.repeat([1.0, 1e-9], len(SIZES)))
    assert found.at(400) == pytest.approx(one.at(400), abs=1e-3)


def test_rows_needed_are_the_laws_inverse() -> None:
    true = Law(0.92, 2.0, 0.6)
    assert true.at(true.need(0.85)) == pytest.approx(0.85)
    assert true.need(0.92) == float("inf")
    assert Law(0.5, 0.0, 1.0).need(0.6) == float("inf")


def test_the_band_holds_the_truth_and_narrows_with_documents() -> None:
    true = Law(0.9, 2.0, 0.6)
    few, many = (fit_curve(points(true, documents=d)) for d in (60, 600))
    for found in (few, many):
        band = found.band(400)
        assert band.low <= true.at(400) <= band.high
    assert (many.band(400).high - many.band(400).low) < 0.6 * (
        few.band(400).high - few.band(400).low
    )


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Expect 28.5 of 30, also at twice the rows; fewer than 25 have a chance of 1 in 200."""
    true, held = Law(0.9, 2.0, 0.6), {400: 0, 800: 0}
    for seed in range(30):
        found = fit_curve(points(true, draws=3, documents=200, seed=seed, fixed=False))
        for n in held:
            band = found.band(n)
            held[n] += band.low <= true.at(n) <= band.high
    assert min(held.values()) >= 25
    wide = fit_curve(points(true, seed=1, fixed=False)).band(400)
    assert wide.high - wide.low < 0.15


def test_more_rows_come_with_a_range() -> None:
    true = Law(0.98, 6.0, 0.6)
    want = true.at(800)
    found = rows_needed(fit_curve(points(true, documents=600)), want)
    assert found.kind == "more"
    assert found.rows is not None
    assert found.low is not None
    assert 400 < found.low <= 800
    assert 550 <= found.rows <= 1200
    assert found.high is None or found.high >= 800
    assert "more rows for" in found.text


def test_an_accuracy_already_reached_is_reported() -> None:
    found = rows_needed(fit_curve(points(Law(0.95, 2.0, 0.6))), 0.7)
    assert found.kind == "there"
    assert (found.rows, found.text[:28]) == (50, "50 rows are enough for 70%: ")


def test_all_right_is_reached_at_the_smallest_size() -> None:
    """The law itself never reaches it: its a is a little below 1."""
    some = points(Law(0.5, 0.0, 1.0))
    found = rows_needed(fit_curve(replace(some, right=np.ones_like(some.right))), 1.0)
    assert (found.kind, found.rows) == ("there", 25)
    assert (
        found.text
        == "25 rows are enough for 100%: they give 100.0%, though it may be as low as 98.1%."
    )


def test_a_target_that_was_reached_and_lost_again_is_not_there() -> None:
    some = points(Law(0.7, 0.0, 1.0))
    lucky = np.array([0.72 if size == 50 else 0.66 for size in some.rows])
    found = fit_curve(replace(some, right=(np.arange(200) < 200 * lucky[:, None]).astype(float)))
    assert found.reached(0.7) is None
    reached = found.reached(0.6)
    assert reached
    assert (reached[0], round(reached[1], 6)) == (25, 0.66)


def measured(accuracies: dict[int, float], draws: int = 3, documents: int = 200) -> Points:
    """Make points of the given accuracies; each draw and size flips four random documents."""
    random = np.random.default_rng(0)
    rows = np.tile(list(accuracies), draws)
    right = np.array([np.arange(documents) < accuracies[int(n)] * documents for n in rows])
    for row in right:
        row[random.choice(np.flatnonzero(row), 2)] = False
        row[random.choice(np.flatnonzero(~row), 2)] = True
    return Points(
        rows.astype(float),
        np.repeat(np.arange(draws), len(accuracies)),
        right.astype(float),
        np.arange(documents),
    )


@pytest.mark.parametrize("draws", [1, 3])
def test_accuracy_that_falls_with_more_rows_is_no_forecast(draws: int) -> None:
    found = fit_curve(measured({25: 0.85, 50: 0.75, 100: 0.62, 200: 0.5}, draws))
    assert found.misfit
    assert found.misfit.startswith("No forecast: accuracy falls with more rows, from 85.")
    assert "The best accuracy was 85." in found.misfit
    assert ", with 25 rows." in found.misfit
    assert rows_needed(found, 0.7).kind == "misfit"
    assert rows_needed(found, 0.7).text == found.misfit
    assert rows_needed(found, 0.4).text.startswith("25 rows are enough for 40%: they give 85.")


def test_points_off_every_saturating_curve_are_no_forecast() -> None:
    found = fit_curve(measured({25: 0.5, 50: 0.6, 100: 0.85, 200: 0.6, 400: 0.65}))
    assert found.misfit
    assert "With 100 rows, accuracy is 17.0 points above the closest curve" in found.misfit
    assert rows_needed(found, 0.9).kind == "misfit"


def test_what_fits_is_not_refused() -> None:
    """At the 5% level, more than three of thirty have a chance of 1 in 16."""
    laws = (Law(0.9, 2.0, 0.6), Law(0.6, 0.0, 1.0), Law(1.0, 1.2, 0.15))
    refused = [
        fit_curve(points(each, seed=seed, fixed=False)).misfit
        for each in laws
        for seed in range(10)
    ]
    assert len([one for one in refused if one]) <= 3


def test_without_a_forecast_none_is_shown() -> None:
    """Neither the doubling nor the curve is shown; a target that was reached still is."""
    some = measured({25: 0.85, 50: 0.75, 100: 0.62, 200: 0.5})
    found = fit_curve(some)
    reached: Any = [
        SimpleNamespace(
            rows=int(n),
            right=row.tolist(),
            point=SimpleNamespace(size=int(n), draw=d, arm=SimpleNamespace(path="x")),
        )
        for n, d, row in zip(some.rows, some.draw, some.right, strict=True)
    ]
    plan: Any = SimpleNamespace(
        points=[one.point for one in reached],
        recipe="sft",
        backend="torch",
        material=SimpleNamespace(test=range(200)),
    )
    assert {line[-1] for line in run.curve_table(reached, found)} == {"–"}
    assert run.curve_lines(plan, found, rows_needed(found, 0.8)) == [found.misfit]
    said = run.curve_lines(plan, found, rows_needed(found, 0.4))
    assert (said[0], said[1][:15]) == (found.misfit, "25 rows are eno")
    plan.points, plan.material.test = [one for one in plan.points if one.draw == 0], range(1)
    assert (
        "over 1 nested draw and 1 test document. "
        in run.curve_lines(plan, fit_curve(points(Law(0.6, 0.0, 1.0))), None)[-1]
    )
    told = run.curve_as_dict(plan, reached, found, rows_needed(found, 0.8))
    assert (told["misfit"], told["doubling"], told["curve"]) == (found.misfit, None, [])
    assert told["answer"]["rows"] is None


def test_a_flat_curve_never_reaches_the_target() -> None:
    found = rows_needed(fit_curve(points(Law(0.6, 0.0, 1.0))), 0.9)
    assert found.kind == "never"
    assert found.rows is None
    assert found.text.startswith("More data of this kind will not reach 90%")


def test_a_curve_that_saturates_below_the_target_never_reaches_it() -> None:
    found = rows_needed(fit_curve(points(Law(0.7, 20.0, 1.2), documents=600)), 0.9)
    assert found.kind == "never"


def test_beyond_four_times_the_rows_nothing_is_promised() -> None:
    true = Law(1.0, 1.2, 0.15)  # still rising slowly: 0.9 takes millions of rows
    want = true.at(400 * FAR * 2)
    found = rows_needed(fit_curve(points(true, documents=200)), want)
    assert found.kind == "beyond"
    assert (found.rows, found.high) == (None, None)
    assert "too far to extrapolate" in found.text
    assert "1600 rows" in found.text


def test_nothing_right_anywhere_is_no_certainty() -> None:
    some = points(Law(0.5, 0.0, 1.0), documents=10)
    found = fit_curve(replace(some, right=np.zeros((15, 10))))
    band = found.band(400)
    assert band.low == pytest.approx(0, abs=1e-3)
    assert band.high > 0.2  # Wilson's, of none in ten


def test_the_quick_search_finds_what_least_squares_finds() -> None:
    some = points(Law(0.9, 2.0, 0.6))
    ones = np.ones(len(some.rows))
    quick, slow = search_law(some.rows, some.means, ones), fit_law(some.rows, some.means, ones)
    for n in (25, 100, 400, 1600):
        assert quick.at(n) == pytest.approx(slow.at(n), abs=3e-3)


def test_groups_of_documents_are_resampled_together() -> None:
    true = Law(0.9, 2.0, 0.6)
    alone = points(true, documents=200)
    groups = Points(alone.rows, alone.draw, alone.right, np.arange(200) // 50)
    wide, narrow = fit_curve(groups).band(400), fit_curve(alone).band(400)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_two_sizes_are_no_curve() -> None:
    with pytest.raises(DataError, match="needs three sizes or more, got 2"):
        fit_curve(points(Law(0.9, 2.0, 0.6), sizes=(25, 50)))


def test_sizes_double_up_to_all() -> None:
    assert curve_sizes(230) == (25, 50, 100, 200, 230)
    assert curve_sizes(100) == (25, 50, 100)
    assert curve_sizes(16, (8, 4, 16)) == (4, 8, 16)


@pytest.mark.parametrize(
    ("count", "sizes"), [(3, None), (4, (1, 2, 4)), (40, (10, 20, 40)), (70, (25, 50, 70))]
)
def test_few_rows_are_tried_in_quarters(count: int, sizes: tuple[int, ...] | None) -> None:
    if sizes is None:
        with pytest.raises(ConfigError, match="a curve needs 3 sizes"):
            curve_sizes(count)
    else:
        assert curve_sizes(count) == sizes


@pytest.mark.parametrize(
    ("count", "asked"), [(2, ()), (16, (4, 8)), (16, (4, 8, 17)), (16, (0, 4, 8))]
)
def test_too_few_sizes_or_too_many_rows_are_refused(count: int, asked: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=str(count)):
        curve_sizes(count, asked)


def test_draws_are_nested_and_differ() -> None:
    rows = list(range(100))
    small, large = nested_sample(rows, 25, 1), nested_sample(rows, 50, 1)
    assert set(small) < set(large)
    assert large == sorted(large)
    assert set(nested_sample(rows, 25, 2)) != set(small)
    assert nested_sample(rows, 100, 5) == rows
