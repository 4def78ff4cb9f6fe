"""A stream of draws named by a text.

Only `Random.random` is used: Python promises its sequence for good.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class RandomStream:
    """Draws that depend on `name` alone. Mutable by nature: each call moves the stream on."""

    def __init__(self, name: str) -> None:
        self._random = random.Random(name).random

    def below(self, stop: int) -> int:
        """A whole number in [0, stop)."""
        return int(self._random() * stop)

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + self.below(high - low + 1)

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`."""
        return choices[self.below(len(choices))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """`count` different ones of `choices`."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return self._random() < probability
