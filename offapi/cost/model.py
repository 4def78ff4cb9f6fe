"""The cost of a month, with your own model and at the API, and their break-even.

    own = hardware share + kWh x tariff + (labels + review + training) / months between retrainings
          + operation + setup / months the task lives + escalated share x API
    API = requests x tokens x prices (prompt, cached prompt, answer), less the batch's discount

A machine costs at least its share. Requests beyond its capacity are paid for by the part of a
machine they use, so that a request never gets more expensive with volume. Shapes: every figure is
an array of draws, (N,). Left out: growth (`lifetime`), interest, tax, resale, and whole machines
(`machines` returns how many).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HOURS = 365 * 24 / 12  # in a month: 730
CASES = ("owned", "bought", "rented")

Numbers = NDArray[np.float64]
Values = Mapping[str, Numbers]


def complete_values(values: Values) -> dict[str, Numbers]:
    """Return `values` with the inputs that follow from others filled in, each (N,)."""
    found = dict(values)
    found.setdefault("price_cached", found["price_in"])
    found.setdefault("own_tokens", found["output_tokens"])
    if "seconds" not in found:
        found["seconds"] = found["own_tokens"] / found["tokens_per_second"]
    found.setdefault("label_price", api_request(found))
    return found


def api_request(v: Values) -> Numbers:
    """Return the price of a request at the API."""
    prompt = (1 - v["cached_share"]) * v["price_in"] + v["cached_share"] * v["price_cached"]
    dollars = (v["input_tokens"] * prompt + v["output_tokens"] * v["price_out"]) / 1e6
    return dollars * (1 - v["batch_share"] * v["batch_discount"])


@dataclass(frozen=True)
class Costs:
    """One case's prices, each with its unit."""

    api: Numbers  # per request
    setup: Numbers  # once
    horizon_months: Numbers
    retraining: Mapping[str, Numbers]  # labels, review, training: per retraining
    months_between: Numbers
    operation: Numbers  # per month
    escalation: Numbers  # per request
    busy_energy: Numbers  # per request, beyond that of an idle machine
    idle_energy: Numbers  # per machine and month
    rent: Numbers  # per machine and month
    purchase: Numbers  # per machine
    purchase_months: Numbers  # service life of a machine
    floor: Numbers  # the least number of machines paid for
    capacity: Numbers  # requests per machine and month
    most_machines: float  # machines available

    @property
    def retraining_price(self) -> Numbers:
        """The price of one retraining."""
        return sum(self.retraining.values(), np.zeros(1))

    def machines(self, requests: Numbers) -> Numbers:
        """Return the machines paid for, as a fraction."""
        return np.maximum(self.floor, requests / self.capacity)

    def fits(self, requests: Numbers) -> NDArray[np.bool_]:
        """Return whether there are enough machines."""
        return requests / self.capacity <= self.most_machines

    def month(self, requests: Numbers) -> dict[str, Numbers]:
        """Return the cost of a month with `requests`, part by part."""
        machines = self.machines(requests)
        return {
            "hardware": (self.rent + self.purchase / self.purchase_months) * machines,
            "energy": self.idle_energy * machines + self.busy_energy * requests,
            **{name: price / self.months_between for name, price in self.retraining.items()},
            "operation": self.operation,
            "setup": self.setup / self.horizon_months,
            "escalation": self.escalation * requests,
        }

    def monthly(self, requests: Numbers) -> Numbers:
        """Return the cost of a month with `requests`."""
        return sum(self.month(requests).values(), np.zeros(1))

    def break_even(self) -> Numbers:
        """Return the requests a month from which your own model is cheaper; infinite if never.

        Its cost is a line up to the capacity of the machines paid for, and a steeper one beyond. A
        request gets cheaper along both, so they meet the API's line at most once.
        """
        fixed = (
            self.retraining_price / self.months_between
            + self.operation
            + self.setup / self.horizon_months
        )
        machine = self.rent + self.purchase / self.purchase_months + self.idle_energy
        gain = self.api - self.escalation - self.busy_energy  # per request, without machines
        within = _divide(fixed + machine * self.floor, gain)
        beyond = _divide(fixed, gain - machine / self.capacity)
        requests = np.where(within <= self.floor * self.capacity, within, beyond)
        return np.where(requests <= self.most_machines * self.capacity, requests, np.inf)


def case_costs(case: str, values: Values) -> Costs:
    """Return the prices of `case`: a machine you own already, one you buy, or one you rent."""
    v = complete_values(values)
    none = np.zeros(1)
    idle = np.minimum(v["idle_watts"], v["watts"])
    kwh = v["tariff"] / 1000  # price of one watt for an hour
    hours = v["seconds"] / 3600
    rented, bought = case == "rented", case == "bought"
    training = v["training_hours"] * (v["rent"] if rented else v["watts"] * kwh)
    labels, review = v["labels"] * v["label_price"], v["review_hours"] * v["hourly_rate"]
    return Costs(
        api=api_request(v),
        setup=v["setup_hours"] * v["hourly_rate"],
        horizon_months=v["horizon_months"],
        retraining={"labels": labels, "review": review, "training": training},
        months_between=v["months_between_retrainings"],
        operation=v["operation_hours"] * v["hourly_rate"],
        escalation=v["escalated_share"] * api_request(v),
        busy_energy=none if rented else hours * (v["watts"] - idle) * kwh,
        idle_energy=none if rented else HOURS * idle * kwh,
        rent=HOURS * v["rent"] if rented else none,
        purchase=v["hardware_price"] if bought else none,
        purchase_months=v["hardware_months"],
        floor=v["rent_hours"] / HOURS if rented else v["hardware_share"],
        capacity=HOURS * v["utilisation"] / hours,
        most_machines=1.0 if case == "owned" else np.inf,
    )


def _divide(fixed: Numbers, gain: Numbers) -> Numbers:
    """Return `fixed` / `gain`; infinite where nothing is gained."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gain > 0, fixed / gain, np.inf)
