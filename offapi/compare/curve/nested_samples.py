"""Which rows each point of a curve learns from: nested
draws, so that more rows always means the same and some more.

Left out: stratified draws; a frequent sender stays as frequent as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from offapi.errors import ConfigError
from offapi.randomness import order

T = TypeVar("T")
FIRST = 25  # rows of the smallest point
LEAST = 3  # sizes, to fit a curve of three numbers


def curve_sizes(count: int, asked: Sequence[int] = ()) -> tuple[int, ...]:
    """25, 50, 100 ... and all `count`, or those asked for. ConfigError where that is no curve."""
    found = (
        sorted({*asked})
        if asked
        else [FIRST * 2**i for i in range(count) if FIRST * 2**i < count] + [count]
    )
    if asked and (found[0] < 1 or found[-1] > count):
        raise ConfigError(
            f"there are {count} rows to draw from.",
            where="--sizes",
            next_step=f"Name 1 to {count}.",
        )
    if len(found) < LEAST:
        step = "Name smaller ones with --sizes, or bring more rows."
        raise ConfigError(
            f"a curve needs {LEAST} sizes, of {count} rows there are {found}.", next_step=step
        )
    return tuple(found)


def nested_sample(rows: Sequence[T], size: int, draw: int) -> list[T]:
    """`size` of `rows` in their old order; those of
    a smaller size of the same draw are among them.
    """
    return [rows[i] for i in sorted(order(draw, 0, len(rows))[:size])]
