"""A figure with its 95% interval, and Wilson's interval of a rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

Z95 = 1.959963984540054  # standard errors on either side of a two-sided 95% interval


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% interval. Rates lie in [0, 1], differences of rates in [-1, 1]."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, right: Sequence[bool]) -> Interval:
        """Return the share of True in `right`, which must not be empty, with Wilson's interval."""
        return wilson(sum(right), len(right))

    def percent(self) -> str:
        """Return the interval as text: `90.0 [78.6–95.7]`."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}–{100 * self.high:.1f}]"

    def points(self) -> str:
        """Return a difference in percentage points as text: `+3.0 [-1.2 to +7.1]`."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f} to {100 * self.high:+.1f}]"


def wilson(right: float, of: float, z: float = Z95) -> Interval:
    """Return the rate `right` / `of` with its score interval (Wilson 1927), 95% by default.

    Either may be fractional, as an effective sample size is.
    """
    rate, squared = float(right / of), z * z
    centre = (2 * of * rate + squared) / (2 * (of + squared))
    half = z / (2 * (of + squared)) * sqrt(4 * of * rate * (1 - rate) + squared)
    low = 0.0 if right == 0 else max(0.0, float(centre - half))
    high = 1.0 if right == of else min(1.0, float(centre + half))
    return Interval(rate, low, high)
