"""Whether your own model pays over the task's life: three cases, break-even, sensitivity.

Left out: where the inputs come from (`inputs`, `from_run`, `measure`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from offapi.cost import lifetime, model, monte_carlo
from offapi.cost.inputs import CostInputs
from offapi.cost.model import CASES, HOURS, Numbers

SURE = 0.9  # share of the draws that is enough for a verdict
NEVER = "never"
NAMES = {
    "owned": "a machine you own",
    "bought": "a machine you buy",
    "rented": "a machine you rent",
}


@dataclass(frozen=True)
class Spread:
    """A figure at the likeliest inputs, and its 5th and 95th percentile; None means never."""

    likely: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, likely: Numbers, drawn: Numbers) -> Spread:
        """Return the spread of the figure (1,) and its draws (N,); infinite means never."""
        tail = (1 - monte_carlo.LEVEL) / 2
        # inverted_cdf never averages a finite draw with an infinite one
        low, high = np.quantile(drawn, (tail, 1 - tail), method="inverted_cdf")
        return cls(*(float(x) if np.isfinite(x) else None for x in (likely[0], low, high)))


@dataclass(frozen=True)
class Case:
    """One way to run your own model."""

    name: str
    parts: Mapping[str, float]  # of the first month, likely
    monthly: Spread  # the first month
    per_request: Spread
    total: Spread  # over the task's life
    break_even_requests: Spread  # a month, for one month on its own
    break_even_start: Spread  # requests in the first month from which the total is lower
    break_even_month: Spread
    machines: float  # needed in the first month at the likely volume and speed; fractional
    most_machines: float  # needed in the busiest month
    whole_machines: float  # cost of the first month if machines can only be had whole
    fits: bool
    cheaper: float  # share of draws in which the total is below the API's
    cheaper_at_first: float  # share of draws in which the first month on its own is

    @property
    def verdict(self) -> str:
        """`pays`, `stay on the API` or `cannot tell`, over the task's life."""
        if not self.fits or self.cheaper <= 1 - SURE:
            return "stay on the API"
        return "pays" if self.cheaper >= SURE else "cannot tell"

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints under the case's name."""
        figures = {key: value for key, value in asdict(self).items() if key != "name"}
        return {**figures, "verdict": self.verdict}


@dataclass(frozen=True)
class Swing:
    """What an average month saves over the API with one input at its ends, the others likely."""

    key: str
    at_low: float
    at_high: float

    @property
    def decides(self) -> bool:
        """Whether the answer changes between the two ends."""
        return (self.at_low > 0) != (self.at_high > 0)


@dataclass(frozen=True)
class Estimate:
    """The whole estimate."""

    inputs: CostInputs
    api: Spread  # the first month
    api_per_request: Spread
    api_total: Spread  # over the task's life
    cases: tuple[Case, ...]
    best: Case  # the case that the sensitivity is about
    swings: tuple[Swing, ...]

    @property
    def verdict(self) -> str:
        """`pays` if a case does, `stay on the API` if none can, else `cannot tell`."""
        verdicts = {case.verdict for case in self.cases}
        if "pays" in verdicts:
            return "pays"
        return "cannot tell" if "cannot tell" in verdicts else "stay on the API"

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints: money in `currency`, null for never."""
        known = {
            key: {**asdict(quantity.range), "source": quantity.source}
            for key, quantity in self.inputs.known.items()
        }
        cases = {case.name: case.as_dict() for case in self.cases}
        swings = [asdict(swing) | {"decides": swing.decides} for swing in self.swings]
        return {
            "verdict": self.verdict,
            "currency": self.inputs.currency,
            "prices_dated": self.inputs.dated,
            "api": {
                "monthly": asdict(self.api),
                "per_request": asdict(self.api_per_request),
                "total": asdict(self.api_total),
            },
            "cases": cases,
            "sensitivity": {
                "case": self.best.name,
                "inputs": swings,
            },
            "inputs": known,
            "assumed": self.inputs.assumed(),
            "method": {
                "draws": monte_carlo.DRAWS,
                "seed": monte_carlo.SEED,
                "level": monte_carlo.LEVEL,
                "sure": SURE,
                "distribution": "triangular, independent",
                "hours_a_month": HOURS,
            },
        }


def estimate(inputs: CostInputs) -> Estimate:
    """Estimate all three cases, once at the likeliest inputs and once for every draw."""
    one, many = monte_carlo.likely_values(inputs), monte_carlo.draw_values(inputs)
    cases = tuple(estimate_case(name, one, many) for name in CASES)
    fitting = [case for case in cases if case.fits] or list(cases)
    best = min(fitting, key=lambda case: case.total.likely or 0.0)
    api = [model.api_request(model.complete_values(values)) for values in (one, many)]
    monthly = Spread.of(api[0] * one["requests"], api[1] * many["requests"])
    lives = [
        lifetime.lifetime_costs(model.case_costs("owned", v), v["requests"], v["growth"])
        for v in (one, many)
    ]
    total = Spread.of(*(life.api_total for life in lives))
    swings = tuple(Swing(*row) for row in monte_carlo.swings(inputs, best.name))
    return Estimate(inputs, monthly, Spread.of(*api), total, cases, best, swings)


def estimate_case(name: str, one: model.Values, many: model.Values) -> Case:
    """Estimate the case `name` at the likeliest inputs `one` and over the draws `many`."""
    costs, drawn = model.case_costs(name, one), model.case_costs(name, many)
    asked, asked_drawn = one["requests"], many["requests"]
    life, lives = (
        lifetime.lifetime_costs(costs, asked, one["growth"]),
        lifetime.lifetime_costs(drawn, asked_drawn, many["growth"]),
    )
    monthly, monthly_drawn = costs.monthly(asked), drawn.monthly(asked_drawn)
    needed = float((asked / costs.capacity)[0])
    machine = costs.rent + costs.purchase / costs.purchase_months + costs.idle_energy
    extra = max(0.0, np.ceil(needed) - needed) if needed > 1 else 0.0
    at_first = drawn.fits(asked_drawn) & (monthly_drawn < drawn.api * asked_drawn)
    starts = lifetime.break_even(costs, one["growth"]), lifetime.break_even(drawn, many["growth"])
    return Case(
        name=name,
        parts={part: float(value[0]) for part, value in costs.month(asked).items()},
        monthly=Spread.of(monthly, monthly_drawn),
        per_request=Spread.of(monthly / asked, monthly_drawn / asked_drawn),
        total=Spread.of(life.total, lives.total),
        break_even_requests=Spread.of(costs.break_even(), drawn.break_even()),
        break_even_start=Spread.of(*starts),
        break_even_month=Spread.of(life.payback_month(), lives.payback_month()),
        machines=needed,
        most_machines=float((life.most / costs.capacity)[0]),
        whole_machines=float((monthly + machine * extra)[0]),
        fits=bool(life.fits[0]),
        cheaper=float(lives.cheaper.mean()),
        cheaper_at_first=float(at_first.mean()),
    )
