"""Uncertain inputs: draws of all at once, and the swing of each alone.

A range is a triangular distribution, each input independent of the others, by inverse CDF from
NumPy's counter-based Philox with a fixed seed. Left out: correlations, and other shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from offapi.cost.inputs import INPUTS, CostInputs, Range
from offapi.cost.lifetime import lifetime_costs
from offapi.cost.model import Numbers, case_costs

DRAWS, SEED = 10_000, 0
LEVEL = 0.9  # of the ranges shown: from the 5th to the 95th percentile


def likely_values(inputs: CostInputs) -> dict[str, Numbers]:
    """Return every input at its likeliest, (1,)."""
    return {key: np.array([quantity.range.likely]) for key, quantity in inputs.known.items()}


def draw_values(inputs: CostInputs, count: int = DRAWS, seed: int = SEED) -> dict[str, Numbers]:
    """Draw every input, (count,). Its draws do not depend on which others are uncertain."""
    uniforms = np.random.Generator(np.random.Philox(seed)).random((len(INPUTS), count))
    rows = {row.key: uniforms[i] for i, row in enumerate(INPUTS)}
    return {key: triangular(quantity.range, rows[key]) for key, quantity in inputs.known.items()}


def triangular(range: Range, uniforms: Numbers) -> Numbers:
    """Return the inverse CDF of the triangular distribution from low over likely to high."""
    low, mode, high = range.low, range.likely, range.high
    if low == high:
        return np.full_like(uniforms, low)
    width = high - low
    rising = low + np.sqrt(uniforms * width * (mode - low))
    falling = high - np.sqrt((1 - uniforms) * width * (high - mode))
    return np.clip(np.where(uniforms < (mode - low) / width, rising, falling), low, high)


def swings(inputs: CostInputs, case: str) -> list[tuple[str, float, float]]:
    """Return what an average month saves over the API with each uncertain input at its ends.

    All other inputs are likely. The input with the largest difference comes first.
    """
    base = likely_values(inputs)
    savings: list[tuple[str, float, float]] = []
    for key, quantity in inputs.known.items():
        if quantity.range.uncertain:
            ends = (quantity.range.low, quantity.range.high)
            low, high = (_saving({**base, key: np.array([end])}, case) for end in ends)
            savings.append((key, low, high))
    return sorted(savings, key=lambda row: -abs(row[2] - row[1]))


def _saving(values: Mapping[str, Numbers], case: str) -> float:
    life = lifetime_costs(case_costs(case, values), values["requests"], values["growth"])
    return float(((life.api_total - life.total) / values["horizon_months"])[0])
