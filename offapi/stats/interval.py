"""A figure with its 95% interval, and Wilson's interval of a rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A figure and its 95% interval. Rates lie in [0, 1], differences of rates in [-1, 1]."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, right: Sequence[bool]) -> Interval:
        """The share of True in `right`, which may not
        be empty, with its score interval (Wilson 1927).
        """
        return wilson(sum(right), len(right))

    def percent(self) -> str:
        """As `90.0 [78.6–95.7]`."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}–{100 * self.high:.1f}]"

    def points(self) -> str:
        """A difference in percentage points, as `+3.0 [-1.2 to +7.1]`."""
        return f"{100 * self.mean:+.1f} [{100 * self.low:+.1f} to {100 * self.high:+.1f}]"


def wilson(right: int, of: int) -> Interval:
    """The rate `right` / `of` with its 95% score interval (Wilson 1927)."""
    from scipy.stats import binomtest

    bounds = binomtest(right, of).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(right / of, float(bounds.low), float(bounds.high))
