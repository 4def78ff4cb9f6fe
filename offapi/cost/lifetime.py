"""The task's whole life: the payments month by month, for your own model and for the API.

Paid when due: setup, machines and the first training in the first month. A last month that is not
whole counts in proportion. Shapes: N draws, M months. Left out: the remaining value of a machine
that outlives the task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.cost.model import Costs, Numbers


@dataclass(frozen=True)
class Life:
    """The payments over the task's life."""

    own: Numbers  # (N, M): paid by the end of each month
    api: Numbers  # (N, M): paid by the end of each month
    fits: NDArray[np.bool_]  # (N,): whether the machines are enough in every month
    within: NDArray[np.bool_]  # (N, M): the months in which the task lives
    most: Numbers  # (N,): requests of the busiest month

    @property
    def total(self) -> Numbers:
        """The total cost of your own model, (N,)."""
        return self.own[:, -1]

    @property
    def api_total(self) -> Numbers:
        """The total cost of the API, (N,)."""
        return self.api[:, -1]

    @property
    def cheaper(self) -> NDArray[np.bool_]:
        """Whether your own model costs less in total, (N,)."""
        return self.fits & (self.total < self.api_total)

    def payback_month(self) -> Numbers:
        """Return the month from which the sum paid stays below the API's, (N,).

        Infinite unless the total is lower.
        """
        above = (self.own >= self.api) & self.within
        last = np.where(above.any(axis=1), above.shape[1] - np.argmax(above[:, ::-1], axis=1), 0)
        return np.where(self.cheaper, last + 1.0, np.inf)


def lifetime_costs(costs: Costs, requests: Numbers, growth: Numbers) -> Life:
    """Return the life of a task with `requests` in its first month, growing by `growth` a month."""
    ends, parts = _months(costs)
    asked = requests[:, None] * _grown(growth, parts)
    machines = np.where(
        parts > 0, np.maximum(costs.floor[:, None], asked / costs.capacity[:, None]), 0.0
    )
    bought = np.maximum.accumulate(machines, axis=1) * np.ceil(
        ends / costs.purchase_months[:, None]
    )
    trained = costs.retraining_price[:, None] * np.ceil(ends / costs.months_between[:, None])
    running = (costs.rent + costs.idle_energy)[:, None] * machines + costs.operation[:, None]
    running = running + (costs.busy_energy + costs.escalation)[:, None] * asked
    own = (
        costs.setup[:, None]
        + costs.purchase[:, None] * bought
        + trained
        + np.cumsum(running * parts, axis=1)
    )
    api = np.cumsum(costs.api[:, None] * asked * parts, axis=1)
    most = np.where(parts > 0, asked, 0.0).max(axis=1)
    own, api = np.broadcast_arrays(own, api)
    return Life(own, api, costs.fits(most), parts > 0, most)


def break_even(costs: Costs, growth: Numbers) -> Numbers:
    """Return the requests in the first month from which your own model's total is lower, (N,).

    Infinite where it never is. The extra cost over the API is convex and piecewise linear in the
    requests, so Newton's method from 0 reaches the root in as many steps as there are pieces, and
    never passes it.
    """
    ends, parts = _months(costs)
    grown = _grown(growth, parts)
    each = grown / costs.capacity[:, None]  # machines for one request in the first month
    price = (costs.rent + costs.idle_energy)[:, None] * parts
    bought = costs.purchase * np.ceil(ends[:, -1] / costs.purchase_months)
    single = (costs.busy_energy + costs.escalation - costs.api) * (grown * parts).sum(axis=1)
    fixed = costs.setup + costs.operation * ends[:, -1]
    fixed = fixed + costs.retraining_price * np.ceil(ends[:, -1] / costs.months_between)
    fullest, floor = np.where(parts > 0, each, 0.0).max(axis=1), costs.floor[:, None]
    found = np.zeros(np.broadcast_shapes(single.shape, fixed.shape, fullest.shape))
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(parts.shape[1] + 2):
            machines = np.maximum(floor, found[:, None] * each)
            excess = (
                fixed
                + (price * machines).sum(axis=1)
                + bought * np.maximum(costs.floor, found * fullest)
            )
            excess = excess + single * found
            busy = found[:, None] * each >= floor
            slope = (
                single
                + (price * each * busy).sum(axis=1)
                + bought * fullest * (found * fullest >= costs.floor)
            )
            step = np.where(
                slope < 0, np.maximum(excess, 0.0) / -slope, np.where(excess >= 0, np.inf, 0.0)
            )
            stays = ~np.isfinite(found) | (step <= 1e-12 * found)
            if stays.all():
                break
            found = np.where(stays, found, found + step)
    return np.where(found * fullest <= costs.most_machines, found, np.inf)


def _months(costs: Costs) -> tuple[Numbers, Numbers]:
    """Return each month's end, capped at the end of the life, and its share of a month, (N, M)."""
    horizon = costs.horizon_months[:, None]
    t = np.arange(1, int(np.ceil(horizon).max()) + 1)
    return np.minimum(t, horizon), np.clip(horizon - t + 1, 0.0, 1.0)


def _grown(growth: Numbers, parts: Numbers) -> Numbers:
    return np.asarray((1 + growth[:, None]) ** np.arange(parts.shape[1]))
