"""Axes with round ticks, and numbers as people write them. Left out: logarithms and dates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to pixels from `start` to `end`, with round `ticks`."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return the pixel of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def scale(
    values: Iterable[float], start: float, end: float, *, zero: bool = False, count: int = 5
) -> Scale:
    """Return a scale of about `count` ticks that holds all `values`, and 0 if `zero`.

    Its ends are ticks.
    """
    known = [*values, 0.0] if zero else list(values) or [0.0, 1.0]
    # Numbers too small to divide count as 0.
    low, high = (0.0 if abs(end) < 1e-300 else end for end in (min(known), max(known)))
    if low == high:
        low, high = (0.0, high * 2) if high > 0 else (low * 2, 0.0) if low < 0 else (0.0, 1.0)
    step = _round_up((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(float(f"{i * step:.12g}") for i in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def steps(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale for training steps: it ends where the values end, with whole ticks."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        return Scale(low - 1, high + 1, start, end, (low,))  # one point stands in the middle
    step = max(1.0, _round_up((high - low) / 5))
    ticks = tuple(i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Scale(low, high, start, end, ticks)


def brief(value: float) -> str:
    """Format a number with three digits, as `0.0005`, `1,250` or `3.2e-13`."""
    if value and not 1e-4 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value + 0.0:.3g}"  # no -0


def _round_up(step: float) -> float:
    """Return the next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= step * (1 - 1e-9))
