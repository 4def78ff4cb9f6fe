"""Bounds of the numbers in a recipe, as a table that a dataclass checks in `__post_init__`.

Left out: types, which msgspec checks, and conditions between two keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

Bound = tuple[Callable[[float], bool], str]  # the test, which NaN never passes, and its text

AT_LEAST_0: Bound = (lambda x: 0 <= x < inf, "0 or more")
AT_LEAST_1: Bound = (lambda x: 1 <= x < inf, "1 or more")
ABOVE_0: Bound = (lambda x: 0 < x < inf, "above 0")
EPOCHS: Bound = (lambda x: 0 < x <= 100_000, "above 0 and at most 100,000")
SEED: Bound = (lambda x: -(2**63) <= x < 2**64, "a whole number of 64 bits")


def require(keys: object, bounds: Mapping[str, Bound]) -> None:
    """Raise ValueError, with the key and its bound, for a number out of bounds; None passes."""
    for name, (holds, text) in bounds.items():
        value = getattr(keys, name)
        if value is not None and not holds(value):
            raise ValueError(f"{name} must be {text}")
