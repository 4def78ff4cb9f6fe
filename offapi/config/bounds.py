"""What the numbers of a recipe may be, as a table: a
dataclass's `__post_init__` refuses the first that is not.

Left out: types, which msgspec checks, and conditions between two keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

Bound = tuple[Callable[[float], bool], str]  # in code, where NaN is never within, and in words

AT_LEAST_0: Bound = (lambda x: 0 <= x < inf, "0 or more")
AT_LEAST_1: Bound = (lambda x: 1 <= x < inf, "1 or more")
ABOVE_0: Bound = (lambda x: 0 < x < inf, "above 0")


def require(keys: object, bounds: Mapping[str, Bound]) -> None:
    """ValueError, naming the key and what is allowed, for
    a number out of its bound; a None is not looked at.
    """
    for name, (holds, words) in bounds.items():
        value = getattr(keys, name)
        if value is not None and not holds(value):
            raise ValueError(f"{name} must be {words}")
