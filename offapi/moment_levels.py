"""The numbers that a moment of 8 bits can be, as shares of the largest of its block.

Dynamic quantisation (arXiv 2110.02861): every decade below 1 has half as many levels as the one
above it. It deviates in three ways. Levels are the upper ends of their steps, so that 1 and -1 are
among them and packing what was unpacked changes no bit; both signs have the same levels; and a
second moment that is not 0 never becomes 0, since the step divides by its root. Left out: the
packing, which each backend does with its own arrays.
"""

from __future__ import annotations

import numpy as np

from offapi.episodes import Floats

BLOCK = 256  # neighbouring numbers that share a scale


def _decades(count: int) -> Floats:
    """Return the levels above 0: 1 in the lowest of `count` decades, 2 in the next, and so on."""
    parts = [np.linspace(0.1, 1, 2**i + 1)[1:] * 10.0 ** (i + 1 - count) for i in range(count)]
    return np.concatenate(parts).astype(np.float32)


def _midpoints(levels: Floats) -> Floats:
    middle: Floats = ((levels[1:].astype(np.float64) + levels[:-1]) / 2).astype(np.float32)
    return middle


SIGNED = np.concatenate([-_decades(7)[::-1], np.zeros(1, np.float32), _decades(7)])  # (255,)
UNSIGNED = np.concatenate([np.zeros(1, np.float32), _decades(8)])  # (256,)
# A number between the midpoints i - 1 and i is nearest to level i.
SIGNED_MIDPOINTS, UNSIGNED_MIDPOINTS = _midpoints(SIGNED), _midpoints(UNSIGNED)
