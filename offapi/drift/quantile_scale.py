"""Lengths, which have no upper bound, as places in [0, 1] among the reference's lengths.

The reference's median is at ½.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PER_DOUBLING, MARKS = 64, 2048  # marks are 1% apart

Numbers = NDArray[np.float64]


def marks(lengths: Numbers) -> NDArray[np.int64]:
    """Return the mark of each length. Every length below 64 has a mark of its own."""
    return np.asarray(np.minimum(np.log2(1.0 + lengths) * PER_DOUBLING, MARKS - 1), np.int64)


@dataclass(frozen=True)
class Ruler:
    """How many lengths fell on each mark, (MARKS,)."""

    counts: NDArray[np.int64]

    def places(self) -> Numbers:
        """Return each mark's place, (MARKS,): the share of lengths below it, plus half of its own.

        Without any lengths, all places are ½.
        """
        n = int(self.counts.sum())
        return (np.cumsum(self.counts) - self.counts / 2) / n if n else np.full(MARKS, 0.5)

    def length_at(self, place: float) -> str:
        """Return the length at a place, as `312`, or `below 12` and `above 900` beyond the ends."""
        if not self.counts.any():
            return "unknown"
        first, last = (int(end) for end in np.flatnonzero(self.counts)[[0, -1]])
        places = self.places()
        if place < places[first]:
            return f"below {_length(first):,.0f}"
        if place > places[last]:
            return f"above {_length(last):,.0f}"
        seen = np.flatnonzero(self.counts)
        return f"{_length(int(seen[np.abs(places[seen] - place).argmin()])):,.0f}"

    def median(self) -> float:
        """Return the median length, within 1%; NaN without any lengths."""
        n = int(self.counts.sum())
        if not n:
            return float("nan")
        return _length(int(np.searchsorted(np.cumsum(self.counts), n / 2)))


def _length(mark: int) -> float:
    return float(np.ceil(2 ** (mark / PER_DOUBLING) - 1 - 1e-9))
