"""Costs: figures computed by hand, properties of any figures, and inputs that are refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import reached
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from offapi.cost import from_run, lifetime, model, monte_carlo, text, watts
from offapi.cost.estimate import Estimate, Spread, estimate, estimate_case
from offapi.cost.inputs import ASSUMED, BY_KEY, INPUTS, Layer, Quantity, Range, resolve_inputs
from offapi.cost.model import CASES, Numbers, case_costs
from offapi.errors import ConfigError
from offapi.training.run import Run

HAND = {
    "requests": 10_000.0,
    "growth": 0.0,
    "input_tokens": 1000.0,
    "output_tokens": 100.0,
    "price_in": 3.0,
    "price_out": 15.0,
    "cached_share": 0.0,
    "batch_share": 0.0,
    "batch_discount": 0.0,
    "seconds": 1.8,  # 0.0005 h
    "utilisation": 0.5,
    "escalated_share": 0.1,
    "watts": 200.0,
    "idle_watts": 100.0,
    "tariff": 0.2,
    "hardware_price": 3600.0,
    "hardware_months": 36.0,
    "hardware_share": 1.0,
    "rent": 1.0,
    "rent_hours": 730.0,
    "labels": 100.0,
    "label_price": 0.05,
    "review_hours": 2.0,
    "training_hours": 10.0,
    "months_between_retrainings": 6.0,
    "setup_hours": 24.0,
    "operation_hours": 1.0,
    "hourly_rate": 50.0,
    "horizon_months": 24.0,
}
API = 1000 * 3 / 1e6 + 100 * 15 / 1e6  # 0.0045 a request
FIXED = (
    (100 * 0.05 + 2 * 50 + 10 * 200 * 0.2 / 1000) / 6 + 1 * 50 + 24 * 50 / 24
)  # 105.4/6 + 50 + 50
IDLE = 730 * 100 * 0.2 / 1000  # 14.60 a month
BUSY = 0.0005 * (200 - 100) * 0.2 / 1000  # 0.00001 a request
ESCALATION = 0.1 * API


def values(**changes: float) -> dict[str, Numbers]:
    return {key: np.array([value]) for key, value in {**HAND, **changes}.items()}


def one(figure: Numbers) -> float:
    assert figure.shape == (1,)
    return float(figure[0])


def monthly(case: str, **changes: float) -> float:
    found = values(**changes)
    return one(case_costs(case, found).monthly(found["requests"]))


def test_a_request_at_the_api_by_hand() -> None:
    assert one(model.api_request(model.complete_values(values()))) == pytest.approx(0.0045)
    half_cached = values(
        cached_share=0.5, price_cached=0.3
    )  # prompt tokens at 0.5 x 3 + 0.5 x 0.3 = 1.65
    assert one(model.api_request(half_cached)) == pytest.approx(0.00165 + 0.0015)
    batched = values(cached_share=0.5, price_cached=0.3, batch_share=0.5, batch_discount=0.5)
    assert one(model.api_request(batched)) == pytest.approx(0.00315 * 0.75)


def test_cached_tokens_cost_as_others_without_a_price() -> None:
    assert one(model.api_request(model.complete_values(values(cached_share=0.9)))) == pytest.approx(
        API
    )


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("owned", FIXED + IDLE + 10_000 * (BUSY + ESCALATION)),  # 136.7667
        ("bought", FIXED + IDLE + 3600 / 36 + 10_000 * (BUSY + ESCALATION)),
        ("rented", (5 + 100 + 10 * 1) / 6 + 50 + 50 + 730 * 1 + 10_000 * ESCALATION),
    ],
)
def test_a_month_by_hand(case: str, expected: float) -> None:
    assert monthly(case) == pytest.approx(expected)
    assert monthly("owned") == pytest.approx(136.7667, abs=1e-4)


def test_the_parts_of_a_month_by_hand() -> None:
    parts = {
        name: one(part)
        for name, part in case_costs("bought", values()).month(np.array([10_000.0])).items()
    }
    assert parts == pytest.approx(
        {
            "hardware": 100.0,
            "energy": 14.6 + 0.1,
            "labels": 5 / 6,
            "review": 100 / 6,
            "training": 0.4 / 6,
            "operation": 50.0,
            "setup": 50.0,
            "escalation": 4.5,
        }
    )


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("owned", (FIXED + IDLE) / (API - ESCALATION - BUSY)),  # 132.1667 / 0.00404 = 32,714.5
        ("bought", (FIXED + IDLE + 100) / (API - ESCALATION - BUSY)),
        ("rented", (115 / 6 + 100 + 730) / (API - ESCALATION)),
    ],
)
def test_break_even_by_hand(case: str, expected: float) -> None:
    assert one(case_costs(case, values()).break_even()) == pytest.approx(expected)


def test_break_even_beyond_the_capacity_paid_for() -> None:
    """10 hours serve 10,000 requests; beyond, each takes a thousandth of a rented hour."""
    costs = case_costs("rented", values(rent_hours=10.0))
    assert one(costs.break_even()) == pytest.approx((115 / 6 + 100) / (API - ESCALATION - 0.001))


def test_an_owned_machine_answers_no_more_than_it_can() -> None:
    slow = values(seconds=360.0)  # 730 x 0.5 / 0.1 h = 3650 requests a month
    assert one(case_costs("owned", slow).capacity) == pytest.approx(3650)
    assert not case_costs("owned", slow).fits(np.array([3651.0]))[0]
    assert one(case_costs("owned", slow).break_even()) == np.inf
    assert case_costs("bought", slow).fits(np.array([1e9]))[0]


def test_an_expensive_escalation_never_breaks_even() -> None:
    assert one(case_costs("owned", values(escalated_share=1.0)).break_even()) == np.inf


def test_tokens_a_second_stand_for_seconds() -> None:
    by_speed = values(tokens_per_second=50.0, own_tokens=90.0)
    del by_speed["seconds"]
    assert one(model.complete_values(by_speed)["seconds"]) == pytest.approx(1.8)
    del by_speed["own_tokens"]
    assert one(model.complete_values(by_speed)["seconds"]) == pytest.approx(2.0), (
        "as many as the API's 100"
    )


def test_a_label_costs_a_request_without_a_price() -> None:
    without = values()
    del without["label_price"]
    assert one(model.complete_values(without)["label_price"]) == pytest.approx(API)


PLAIN = {
    "setup_hours": 2.0,
    "operation_hours": 0.0,
    "idle_watts": 0.0,
    "watts": 0.0,
    "escalated_share": 0.0,
}


def paid_back(case: str, **changes: float) -> float:
    found = values(**PLAIN, **changes)
    return one(
        lifetime.lifetime_costs(
            case_costs(case, found), found["requests"], found["growth"]
        ).payback_month()
    )


def test_the_month_of_payback_by_hand() -> None:
    """The API costs 45 a month.

    Setup 100, a training 5 + 100: 205 of 225 in month 5, 310 of 315 in month 7.
    """
    assert paid_back("owned") == 5


def test_a_later_retraining_takes_the_payback_back() -> None:
    """Paid against the API's: 230 of 270 in month 6, 360 of 315 in month 7, less from month 8."""
    assert paid_back("owned", review_hours=2.5, requests=10_001.0) == 8
    assert paid_back("owned", review_hours=2.5, months_between_retrainings=24.0) == 6


def test_payback_ends_with_the_task() -> None:
    assert paid_back("owned", horizon_months=4.0) == np.inf
    assert paid_back("owned", horizon_months=5.0) == 5
    assert paid_back("bought", horizon_months=24.0) == np.inf  # 3600 more


def test_a_whole_life_by_hand() -> None:
    """Months of 100, 150 and 225 requests, and half of one of 337.5; bought for two months each."""
    changes = {"requests": 100.0, "growth": 0.5, "horizon_months": 3.5, "hardware_months": 2.0}
    found = values(**changes, hardware_price=10.0, months_between_retrainings=3.0)
    life = lifetime.lifetime_costs(case_costs("bought", found), found["requests"], found["growth"])
    asked = 100 + 150 + 225 + 337.5 / 2
    assert one(life.api_total) == pytest.approx(API * asked)
    once = 24 * 50 + 2 * 10 + 2 * (5 + 100 + 10 * 200 * 0.2 / 1000)
    assert one(life.total) == pytest.approx(once + 3.5 * (50 + IDLE) + (BUSY + ESCALATION) * asked)
    assert not life.cheaper[0]


def test_growth_pays_back_sooner_unless_machines_run_out() -> None:
    assert paid_back("bought", growth=0.2) < paid_back("bought", growth=0.1)
    assert paid_back("owned", seconds=131.4, growth=0.1) == np.inf, (
        "10,000 requests fill it in the first month"
    )


MONEY = ("price_in", "price_out", "tariff", "hardware_price", "rent", "label_price", "hourly_rate")
amounts = st.floats(0.01, 1000.0)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Numbers]:
    """Draw any inputs within bounds, far from overflow."""
    shares = {
        "cached_share",
        "batch_share",
        "batch_discount",
        "utilisation",
        "escalated_share",
        "hardware_share",
    }
    found = {key: draw(st.floats(0.01, 1.0) if key in shares else amounts) for key in HAND}
    found |= {
        "growth": 0.0,
        "price_cached": found["price_in"] * draw(st.floats(0, 1)),
        "rent_hours": draw(amounts) * 0.7,
    }
    return {key: np.array([value]) for key, value in found.items()}


@given(worlds(), st.sampled_from(CASES), st.floats(0.001, 5.0), st.floats(1.0, 3.0))
def test_more_volume_never_makes_a_request_dearer(
    world: Mapping[str, Numbers], case: str, load: float, times: float
) -> None:
    costs = case_costs(case, world)
    few = costs.capacity * load  # of one machine
    many = few * times
    before, after = one(costs.monthly(few) / few), one(costs.monthly(many) / many)
    assert after <= before * (1 + 1e-9)


@given(worlds(), st.sampled_from(CASES), st.sampled_from(MONEY), st.floats(1.0, 10.0))
def test_costs_never_fall_when_a_price_rises(
    world: Mapping[str, Numbers], case: str, key: str, times: float
) -> None:
    dearer, requests = {**world, key: world[key] * times}, world["requests"]
    assert one(case_costs(case, dearer).monthly(requests)) >= one(
        case_costs(case, world).monthly(requests)
    ) * (1 - 1e-9)
    assert one(case_costs(case, dearer).api) >= one(case_costs(case, world).api) * (1 - 1e-9)


@given(worlds(), st.sampled_from(["cached_share", "batch_share", "batch_discount"]))
def test_discounts_never_make_the_api_dearer(world: Mapping[str, Numbers], key: str) -> None:
    assert one(model.api_request({**world, key: np.ones(1)})) <= one(model.api_request(world)) * (
        1 + 1e-9
    )


@given(worlds(), st.sampled_from(CASES), st.floats(0.01, 100.0))
def test_another_currency_changes_figures_and_no_answer(
    world: Mapping[str, Numbers], case: str, rate: float
) -> None:
    other = {
        key: value * rate if key in (*MONEY, "price_cached") else value
        for key, value in world.items()
    }
    here, there, requests = case_costs(case, world), case_costs(case, other), world["requests"]
    assert one(there.monthly(requests)) == pytest.approx(one(here.monthly(requests)) * rate)
    assert one(there.break_even()) == pytest.approx(one(here.break_even()), rel=1e-6)


@reached.at_least(5)
@settings(max_examples=400)  # few worlds meet where both costs are equal
@given(worlds(), st.sampled_from(CASES))
def test_at_break_even_both_cost_the_same(world: Mapping[str, Numbers], case: str) -> None:
    costs = case_costs(case, world)
    meets = costs.break_even()
    if np.isfinite(meets[0]) and meets[0] > 0:
        reached.hit()
        assert one(costs.monthly(meets)) == pytest.approx(one(costs.api * meets), rel=1e-6)
        assert one(costs.monthly(meets * 0.9)) >= one(costs.api * meets * 0.9) * (1 - 1e-9)
    else:
        many = (
            np.array([1e12])
            if costs.most_machines == np.inf
            else costs.capacity * costs.most_machines
        )
        assert one(costs.monthly(many)) >= one(costs.api * many) * (1 - 1e-9)


@st.composite
def lives(draw: st.DrawFn) -> dict[str, Numbers]:
    """Draw any inputs whose requests grow or shrink, for some months."""
    months = draw(st.one_of(st.integers(1, 24).map(float), st.floats(1.0, 24.0)))
    more = {"growth": draw(st.floats(-0.5, 0.5)), "horizon_months": months}
    return draw(worlds()) | {key: np.array([value]) for key, value in more.items()}


def in_all(case: str, world: Mapping[str, Numbers], requests: float) -> tuple[float, float]:
    """Add up both totals month by month, from the prices of a single month."""
    costs = case_costs(case, world)
    months, growth = float(world["horizon_months"][0]), float(world["growth"][0])
    own, api, most = one(costs.setup), 0.0, 0.0
    for t in range(math.ceil(months)):
        part, asked = min(1.0, months - t), np.array([requests * (1 + growth) ** t])
        if not costs.fits(asked)[0]:
            own = math.inf
        parts, machines = costs.month(asked), one(costs.machines(asked))
        most = max(most, machines)
        rent = one(costs.rent) * machines
        own += part * (
            rent + sum(one(parts[name]) for name in ("energy", "operation", "escalation"))
        )
        api += part * one(costs.api * asked)
    retrained, replaced = (
        math.ceil(months / one(each)) for each in (costs.months_between, costs.purchase_months)
    )
    prices = sum(one(price) for price in costs.retraining.values())
    return own + retrained * prices + replaced * most * one(costs.purchase), api


@reached.at_least(20)
@given(lives(), st.sampled_from(CASES), st.floats(0.1, 3.0))
def test_own_is_cheaper_iff_it_costs_less_over_the_whole_life(
    world: Mapping[str, Numbers], case: str, times: float
) -> None:
    start = one(lifetime.break_even(case_costs(case, world), world["growth"]))
    requests = times * start if 0 < start < math.inf else times * 1000.0
    own, api = in_all(case, world, requests)
    assume(own == math.inf or abs(own - api) > 1e-6 * api)
    asked = {**world, "requests": np.array([requests])}
    found = estimate_case(case, asked, asked)
    assert found.verdict == ("pays" if own < api else "stay on the API")
    assert (found.break_even_month.likely is not None) == (own < api)
    if found.fits:
        reached.hit()
        assert found.total.likely == pytest.approx(own)
        assert (found.verdict == "pays") == (start < requests)


@given(lives(), st.sampled_from(CASES), st.floats(1.0, 3.0))
def test_more_volume_never_makes_a_request_of_a_life_dearer(
    world: Mapping[str, Numbers], case: str, times: float
) -> None:
    few, costs = world["requests"], case_costs(case, world)
    before, after = (
        one(lifetime.lifetime_costs(costs, asked, world["growth"]).total / asked)
        for asked in (few, few * times)
    )
    assert after <= before * (1 + 1e-9)


def test_kilowatt_hours_by_hand() -> None:
    """A 1000 W machine for an hour a request is a kWh: 0.30 at 0.30."""
    found = values(watts=1000.0, idle_watts=0.0, seconds=3600.0, tariff=0.3, utilisation=1.0)
    assert one(case_costs("owned", found).busy_energy) == pytest.approx(0.3)
    assert one(case_costs("owned", found).capacity) == pytest.approx(730)


ranges = st.lists(st.floats(0.0, 1e6), min_size=3, max_size=3).map(
    lambda numbers: Range(*sorted(numbers))
)


@given(ranges, st.floats(0.0, 1.0, exclude_max=True))
def test_draws_stay_within_their_range(range: Range, uniform: float) -> None:
    assert range.low <= monte_carlo.triangular(range, np.array([uniform]))[0] <= range.high


@settings(max_examples=20)
@given(ranges)
def test_draws_have_the_triangular_mean(range: Range) -> None:
    middle = (np.arange(10_000) + 0.5) / 10_000
    found = monte_carlo.triangular(range, middle).mean()
    assert found == pytest.approx((range.low + range.likely + range.high) / 3, rel=1e-3, abs=1e-6)


def flags(**changes: str) -> Layer:
    base = {
        "requests": "1000000",
        "input_tokens": "1000",
        "output_tokens": "100",
        "price_in": "3",
        "price_out": "15",
        "seconds": "0.2",
    }
    return Layer.of_flags({**base, **changes})


def estimated(**changes: str) -> Estimate:
    return estimate(resolve_inputs([flags(**changes)]))


def test_it_pays_at_a_million_requests_not_at_a_thousand() -> None:
    assert estimated().verdict == "pays"
    few = estimated(requests="1000")
    assert few.verdict == "stay on the API"
    assert text.lines(few)[0].startswith("Stay on the API")
    assert {case.verdict for case in few.cases} == {"stay on the API"}


def test_near_break_even_the_deciding_inputs_are_named() -> None:
    owned = estimated().cases[0].break_even_requests.likely
    found = estimated(requests=str(owned))
    assert found.verdict == "cannot tell"
    assert any(swing.decides for swing in found.swings)
    assert "It depends mostly on" in text.lines(found)[0]


GROWING = {"requests": "60000", "growth": "0.08", "horizon_months": "36", "input_tokens": "1500"}
GROWING |= {"output_tokens": "150", "price_in": "2", "price_out": "8", "seconds": "0.3"}


def test_growth_counts_in_the_verdict_not_in_the_first_month() -> None:
    found = estimated(**GROWING)
    assert (found.verdict, [case.verdict for case in found.cases[:2]]) == ("pays", ["pays", "pays"])
    owned = found.cases[0]
    assert owned.cheaper > 0.9
    assert owned.cheaper_at_first < 0.01
    said = text.lines(found)
    assert (
        said[0]
        == "Your own model pays over the task's 36 months, on a machine you own or a machine you"
        " buy."
    )
    assert ", cheaper in 99% of draws. " in said[1]
    assert "It is paid back in month 20." in said[1]
    assert "about 21,000 requests in the first month." in said[1]
    assert said[1].endswith("The first month alone is more expensive: $442, the API $252.")
    assert "decides" not in str(text.swing_table(found)[1]), (
        "no input alone turns what all months save"
    )


@pytest.mark.parametrize(
    ("spread", "shown"),
    [
        (Spread(145_894.2, 115_787.0, 348_511.0), ("150,000", "120,000 to 350,000")),
        (Spread(145_894.2, 145_000.0, 146_000.0), ("145,894", "145,000 to 146,000")),
        (Spread(145_894.2, 115_787.0, None), ("150,000", "120,000 to never")),
        (Spread(None, None, None), ("never", "never")),
        (Spread(7.0, 3.0, 26.0), ("7", "3 to 26")),
    ],
)
def test_a_figure_from_wide_inputs_has_two_digits(spread: Spread, shown: tuple[str, str]) -> None:
    likely, ends = text._count_rows("break-even", [spread])
    assert (likely[1], ends[1]) == shown


@pytest.mark.parametrize(
    ("given", "likely"), [("50k", 50_000), ("1.5M", 1_500_000), ("20k:50,000:0.1m", 50_000)]
)
def test_numbers_as_people_write_them(given: str, likely: float) -> None:
    assert Range.parse(given).likely == likely


@pytest.mark.parametrize("given", ["k", "1,5", "5 0", "1kk", "50K:", "nank"])
def test_what_spells_no_number(given: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Range.parse(given)


def test_shrinking_requests_count_too() -> None:
    shrinking = estimated(growth="-0.5")
    assert estimated().verdict == "pays"
    assert shrinking.verdict == "stay on the API"
    assert "The first month alone is cheaper: " in text.lines(shrinking)[1]


def test_a_machine_that_is_outgrown_is_not_enough() -> None:
    found = estimated(**{**GROWING, "growth": "0.2"})
    assert (found.cases[0].fits, found.cases[0].verdict) == (False, "stay on the API")
    assert found.cases[0].machines < 1
    assert "in the busiest month." in text.lines(found)[1]


def test_a_certain_estimate_has_no_spread() -> None:
    certain = {row.key: str(Range.parse(row.assumed).likely) for row in INPUTS if row.assumed}
    found = estimated(**certain)
    assert found.swings == ()
    for case in found.cases:
        assert case.monthly.low == pytest.approx(case.monthly.likely)
        assert case.monthly.high == pytest.approx(case.monthly.likely)
        assert case.cheaper in (0.0, 1.0)


def test_the_range_holds_the_likely_figure_and_is_stable() -> None:
    found = estimated()
    assert found == estimated()
    for case in found.cases:
        assert case.monthly.low is not None
        assert case.monthly.high is not None
        assert case.monthly.likely is not None
        assert case.monthly.low < case.monthly.likely < case.monthly.high


def test_swings_by_hand_in_order_of_weight() -> None:
    found = estimated(operation_hours="1:2:3", hourly_rate="50")
    weights = [abs(swing.at_high - swing.at_low) for swing in found.swings]
    assert weights == sorted(weights, reverse=True)
    operation = next(swing for swing in found.swings if swing.key == "operation_hours")
    assert operation.at_low - operation.at_high == pytest.approx(2 * 50)


def test_whole_machines_are_reported_besides_fractions() -> None:
    found = estimated(
        seconds="3.942",
        utilisation="0.5",
        hardware_price="3600",
        hardware_months="36",
        idle_watts="0",
    )
    bought = next(
        case for case in found.cases if case.name == "bought"
    )  # 1e6 x 3.942 s / (3600 x 365 h) = 3.0
    assert bought.machines == pytest.approx(3.0)
    half = estimated(
        seconds="3.285",
        utilisation="0.5",
        hardware_price="3600",
        hardware_months="36",
        idle_watts="0",
    )
    bought = next(
        case for case in half.cases if case.name == "bought"
    )  # 2.5: half a machine more is 50 a month
    assert bought.whole_machines - (bought.monthly.likely or 0) == pytest.approx(50)
    owned = half.cases[0]
    assert (owned.fits, owned.verdict) == (False, "stay on the API")
    assert "2.5 machines are needed" in "".join(text.lines(half))


def test_every_assumption_is_named() -> None:
    found = estimated(tariff="0.3")
    told = orjson.loads(orjson.dumps(found.as_dict()))
    assert told["inputs"]["tariff"] == {
        "low": 0.3,
        "likely": 0.3,
        "high": 0.3,
        "source": "--tariff",
    }
    assert set(told["assumed"]) == {row.key for row in INPUTS if row.assumed} - {"tariff"}
    assert {row[0] for row in text.input_table(found)[1] if row[3] == ASSUMED} == set(
        told["assumed"]
    )


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "never"),
        (0.0, "€0.00"),
        (1234.4, "€1,234"),
        (-12.3, "-€12.30"),
        (0.0042, "€0.0042"),
        (99.5, "€99.50"),
    ],
)
def test_money(amount: float | None, shown: str) -> None:
    assert text.money(amount, "€") == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "number or low:likely:high"),
        ("many", "number or low:likely:high"),
        ("1:2", "number or low:likely:high"),
        ("3:2:1", "from low to high"),
        ("nan", "from low to high"),
        ("inf", "from low to high"),
        ("-1", "at least 0"),
    ],
)
def test_texts_that_are_not_ranges(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        flags(tariff=text)
    assert caught.value.where == f"--tariff {text}"
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("key", "value"), [("requests", "0"), ("seconds", "0:1:2"), ("escalated_share", "0:0.5:1.1")]
)
def test_bounds(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        flags(**{key: value})


def test_assumptions_are_within_their_own_bounds() -> None:
    checked = 0
    for row in INPUTS:
        if row.assumed is not None:
            checked += 1
            assert row.read(row.assumed)
    assert checked > 10


def write(folder: Path, text: str) -> Path:
    path = folder / "costs.toml"
    path.write_text(text)
    return path


def test_a_file_and_flags_on_top(tmp_path: Path) -> None:
    path = write(tmp_path, 'requests = "1:2:3"\nprice_in = 1\ncurrency = "€"\ndated = "2026-11"\n')
    found = resolve_inputs([Layer.of_file(path), flags(requests="7")])
    assert found.known["requests"] == Quantity(Range(7, 7, 7), "--requests")
    assert (found.currency, found.dated) == ("€", "2026-11")
    assert Layer.of_file(path).known["requests"] == Quantity(Range(1, 2, 3), str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requets = 1", "Did you mean 'requests'?"),
        ('requests = "1:2"', "line 1, field 'requests'"),
        ("\nrequests = true", "line 2, field 'requests'"),
        ("requests = 0", "must be above 0"),
        ("requests = [1]", "field 'requests'"),
        ("requests =", "not valid TOML"),
    ],
)
def test_a_file_with_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Layer.of_file(write(tmp_path, text))
    assert said in f"{caught.value} {caught.value.next_step}"
    assert "costs.toml" in caught.value.where


def test_missing_inputs_are_listed() -> None:
    with pytest.raises(
        ConfigError, match=r"--requests .*--input-tokens .*--price-out .*--seconds or"
    ):
        resolve_inputs([Layer.of_flags({"price_in": "1"})])


def test_one_speed_and_the_later_layer_says_which() -> None:
    with pytest.raises(ConfigError, match="two ways to give the same input"):
        resolve_inputs([flags(tokens_per_second="10")])
    found = resolve_inputs([flags(), Layer.of_flags({"tokens_per_second": "10"})])
    assert "seconds" not in found.known


def test_the_example_file_is_whole_and_says_what_it_is() -> None:
    path = Path(model.__file__).with_name("prices-2026-11.toml")
    found = resolve_inputs([Layer.of_file(path)])
    assert found.dated == "2026-11"
    assert estimate(found).verdict in ("pays", "cannot tell", "stay on the API")
    assert "an assumption" in path.read_text()


def run_folder(root: Path, **manifest: Any) -> Run:
    return Run.create(root, "r", {"config": {}, "backend": "torch", **manifest})


def test_inputs_from_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    manifest = orjson.loads((run.path / "manifest.json").read_bytes())
    spans = [
        ("2026-11-26T00:00:00+00:00", "2026-11-26T00:30:00+00:00"),
        ("2026-11-26T01:00:00+00:00", None),
    ]
    manifest["attempts"] = [{"started": a, **({"ended": b} if b else {})} for a, b in spans]
    (run.path / "manifest.json").write_bytes(orjson.dumps(manifest))
    (run.path / "timings.jsonl").write_text(
        "".join(f'{{"step":{i},"seconds/heldout":{s}}}\n' for i, s in enumerate((3.0, 1.0, 2.0)))
        + '{"step":4}\n'
    )
    (run.path / "heldout-000003.jsonl").write_text('{"id":"a"}\n{"id":"b"}\n')
    label = {"status": "ok", "seconds": 1.0, "prompt_sha256": "x", "output": "{}"}
    rows = [
        {
            **label,
            "id": "a",
            "teacher": "http://h/v1",
            "usage": {"prompt_tokens": 100, "completion_tokens": 10},
        },
        {
            **label,
            "id": "b",
            "teacher": "http://h/v1",
            "usage": {"prompt_tokens": 300, "completion_tokens": 20},
        },
        {
            **label,
            "id": "c",
            "teacher": "local:demo",
            "usage": {"prompt_tokens": 9, "completion_tokens": 9},
        },
    ]
    (run.path / "labels.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    known = from_run.read(run).known
    likely = {key: quantity.range.likely for key, quantity in known.items()}
    assert likely == {
        "training_hours": 0.5,
        "seconds": 1.0,
        "input_tokens": 200.0,
        "output_tokens": 15.0,
    }
    assert known["seconds"].source == "r: 3 evaluations of 2 documents in timings.jsonl"


def test_inputs_from_an_arm_of_a_comparison(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    (run.path / "test-0a1b.json").write_text(
        '{"prompt_tokens":133.0,"completion_tokens":31.5,"seconds":0.25}'
    )
    (run.path / "test-0a1b.jsonl").write_text("")
    known = from_run.read(run).known
    assert {key: quantity.range.likely for key, quantity in known.items()} == {
        "seconds": 0.25,
        "own_tokens": 31.5,
    }
    assert known["seconds"].source == "r: test-0a1b.json"


def test_a_run_without_inputs(tmp_path: Path) -> None:
    assert from_run.read(run_folder(tmp_path)).known == {}


def test_energy_counters_become_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' counters are replaced: not every machine has such a card or chip."""
    counted = iter([0, 1000, 3000, 1000, 5000])  # mJ of each card, in turn: first read twice
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=lambda card: next(counted),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(sys, "platform", "linux")
    ticks = iter([10.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    done, used = watts.measure_power(lambda: "done", watts.find_meter())
    assert (done, used) == ("done", watts.Power(0.5, "1 NVIDIA card only"))  # 2 J in 4 s


def test_without_a_meter_there_are_no_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no driver")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=broken))
    assert watts.find_meter() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert watts.find_meter() is None
    assert watts.measure_power(lambda: 1, None) == (1, None)


def test_counters_of_apple_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = SimpleNamespace(
        cpu_total_mj=1000, gpu_mj=2000, gpu_sram_mj=None, dram_mj=500, ane_mj=None
    )
    monitor = SimpleNamespace(get_cumulative_energy=lambda: counted)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(
        sys.modules, "zeus_apple_silicon", SimpleNamespace(AppleEnergyMonitor=lambda: monitor)
    )
    found = watts.find_meter()
    assert found is not None
    assert (found.joules(), found.of) == (3.5, "the chip only")


def test_swings_name_inputs_that_exist() -> None:
    assert {swing.key for swing in estimated().swings} <= BY_KEY.keys()
    assert replace(estimated().swings[0], at_low=-1.0, at_high=1.0).decides
