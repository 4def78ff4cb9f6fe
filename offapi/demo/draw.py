"""A stream of random draws, seeded by a text.

Only `Random.random` is used, whose sequence Python guarantees.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class RandomStream:
    """A stream of draws that depends on `name` alone; each call advances it."""

    def __init__(self, name: str) -> None:
        self._random = random.Random(name).random

    def below(self, stop: int) -> int:
        """Draw a whole number in [0, stop)."""
        return int(self._random() * stop)

    def between(self, low: int, high: int) -> int:
        """Draw a whole number in [low, high]."""
        return low + self.below(high - low + 1)

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of `choices`."""
        return choices[self.below(len(choices))]

    def sample(self, choices: Sequence[T], count: int) -> list[T]:
        """Draw `count` different ones of `choices`."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def chance(self, probability: float) -> bool:
        """Return True with `probability`."""
        return self._random() < probability
