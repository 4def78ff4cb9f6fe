"""Figures for several sampled answers to one question, from n samples of which c are right.

Both are unbiased for k drawn without replacement. Written as products, they neither overflow nor
lose a small difference of large binomials.
"""

from __future__ import annotations

from math import prod


def pass_all(n: int, c: int, k: int) -> float:
    """Return pass^k, C(c, k) / C(n, k): the chance that all k are right (arXiv 2406.12045)."""
    return prod((c - i) / (n - i) for i in range(k)) if c >= k else 0.0


def pass_any(n: int, c: int, k: int) -> float:
    """Return pass@k, 1 - C(n - c, k) / C(n, k): that any of k is right (arXiv 2107.03374)."""
    return 1.0 - pass_all(n, n - c, k)


def sizes(n: int) -> list[int]:
    """Return the k that are reported for n samples: 1, 2, 4 and so on, and n."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})
