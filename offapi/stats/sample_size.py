"""How many documents it takes to show a difference between two systems.

It imports no numerical library, because `offapi advise` uses it too.
"""

from __future__ import annotations

from math import ceil, sqrt

EIGHTY_PERCENT = 2.8  # 1.960 + 0.842: two-sided 5%, power 80%
# the fewest documents, all differing one way, that an exact test calls significant (2 / 2**6)
FEWEST = 6
# so many must be expected to differ for at least FEWEST to do so in four of five test sets
EXPECTED = 8


def difference(squares: float, n: int, step: float = 1.0) -> float:
    """Return the smallest true difference that `n` documents show with 80% power, at most 1.

    `squares` is the sum of the squared differences, `step` the smallest one; see
    `offapi.stats.paired.detectable`.
    """
    return min(1.0, max(EIGHTY_PERCENT * sqrt(squares) + step, EXPECTED * step) / n)


def documents(differing: int, n: int, difference: float) -> int:
    """Return how many documents show a true `difference` with 80% power.

    It is the inverse of `offapi.stats.paired.detectable`, if the systems differ on `differing` of
    `n` documents. If none differ, one is assumed to, since that says little about how many would.
    """
    share = max(max(differing, 1) / n, difference)
    noise = EIGHTY_PERCENT * sqrt(share)
    needed = ((noise + sqrt(noise**2 + 4 * difference)) / (2 * difference)) ** 2
    return ceil(round(max(needed, EXPECTED / difference), 6))
