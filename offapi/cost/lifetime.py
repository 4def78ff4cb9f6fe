"""The task's whole life: what is paid month by month on
one's own model and at the API, and from when it pays.

Paid when due: setup, machines and the first training in the first month; a last month that is not
whole counts by its part. Shapes: N draws, M months. Left out: what a machine that outlives the task
is still worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.cost.model import Costs, Numbers


@dataclass(frozen=True)
class Life:
    """`own` and `api`: all that was paid by the end of each month, (N, M).

    `fits`: machines enough in all of them.
    """

    own: Numbers
    api: Numbers
    fits: NDArray[np.bool_]
    within: NDArray[np.bool_]  # the months that the task lives in
    most: Numbers  # requests of the fullest month

    @property
    def total(self) -> Numbers:
        """All that the own model costs, (N,)."""
        return self.own[:, -1]

    @property
    def api_total(self) -> Numbers:
        """All that the API costs, (N,)."""
        return self.api[:, -1]

    @property
    def cheaper(self) -> NDArray[np.bool_]:
        """Whether the own model costs less in all, (N,)."""
        return self.fits & (self.total < self.api_total)

    def payback_month(self) -> Numbers:
        """The month from which on, to the end, less was paid
        than at the API; infinite unless it is cheaper in all.
        """
        dearer = (self.own >= self.api) & self.within
        last = np.where(dearer.any(axis=1), dearer.shape[1] - np.argmax(dearer[:, ::-1], axis=1), 0)
        return np.where(self.cheaper, last + 1.0, np.inf)


def lifetime_costs(costs: Costs, requests: Numbers, growth: Numbers) -> Life:
    """The life of a task that is asked `requests` in its
    first month, and `growth` more in each that follows.
    """
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
    """Requests in the first month from which the own model
    is cheaper in all, (N,); infinite where it never is.

    What it costs more than the API is convex and piecewise linear in them, so Newton's method
    from 0 meets the root in as many steps as there are pieces, and never passes it.
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
            dearer = (
                fixed
                + (price * machines).sum(axis=1)
                + bought * np.maximum(costs.floor, found * fullest)
            )
            dearer = dearer + single * found
            busy = found[:, None] * each >= floor
            slope = (
                single
                + (price * each * busy).sum(axis=1)
                + bought * fullest * (found * fullest >= costs.floor)
            )
            step = np.where(
                slope < 0, np.maximum(dearer, 0.0) / -slope, np.where(dearer >= 0, np.inf, 0.0)
            )
            stays = ~np.isfinite(found) | (step <= 1e-12 * found)
            if stays.all():
                break
            found = np.where(stays, found, found + step)
    return np.where(found * fullest <= costs.most_machines, found, np.inf)


def _months(costs: Costs) -> tuple[Numbers, Numbers]:
    """Of each month: when it ends, the life's end at the
    latest, and the part of it that the task lives; (N, M).
    """
    horizon = costs.horizon_months[:, None]
    t = np.arange(1, int(np.ceil(horizon).max()) + 1)
    return np.minimum(t, horizon), np.clip(horizon - t + 1, 0.0, 1.0)


def _grown(growth: Numbers, parts: Numbers) -> Numbers:
    return np.asarray((1 + growth[:, None]) ** np.arange(parts.shape[1]))
