"""How many documents show a difference of two systems.

Imports no library of numbers: advice asks for it too.
"""

from __future__ import annotations

from math import ceil

EIGHTY_PERCENT = 2.8  # 1.960 + 0.842: two-sided 5%, power 80%
# differing documents, all one way: the fewest an exact test calls significant (2 / 2**6 < 0.05)
FEWEST = 6


def documents(differing: int, n: int, difference: float) -> int:
    """Documents that show a true `difference` with 80%
    power where the systems differ on `differing` of `n`.

    `offapi.stats.paired.detectable` the other way round. None that differ says little of how many
    would: one is taken to.
    """
    share = max(max(differing, 1) / n, difference)
    return ceil(round(max(share * (EIGHTY_PERCENT / difference) ** 2, FEWEST / difference), 6))
