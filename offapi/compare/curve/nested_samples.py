"""The rows of each point of a curve: nested draws, so that a larger sample contains the smaller.

Left out: stratified draws; a frequent sender stays as frequent as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from offapi.errors import ConfigError
from offapi.randomness import order
from offapi.text.display import plural

T = TypeVar("T")
FIRST = 25  # rows of the smallest point
LEAST = 3  # sizes needed to fit a curve of three parameters


def curve_sizes(count: int, asked: Sequence[int] = ()) -> tuple[int, ...]:
    """Return 25, 50, 100 ... and all `count`, or the sizes asked for.

    Of few rows, a quarter, a half and all are taken.
    Raise ConfigError if they are too few, or out of range.
    """
    doubling = [FIRST * 2**i for i in range(count) if FIRST * 2**i < count]
    sizes = sorted({*asked}) if asked else [*doubling, count]
    if not asked and len(sizes) < LEAST:
        sizes = sorted({count // 4, count // 2, count} - {0})
    if asked and (sizes[0] < 1 or sizes[-1] > count):
        given = ",".join(map(str, sizes))
        raise ConfigError(
            f"sizes must lie between 1 and {count}, the number of rows.",
            where=f"--sizes {given}",
            next_step=f"Name sizes from 1 to {count}.",
        )
    if len(sizes) < LEAST:
        given = ", ".join(map(str, sizes))
        raise ConfigError(
            f"a curve needs {LEAST} sizes or more, got {given} (of {plural(count, 'row')}).",
            next_step="Name smaller sizes with --sizes, or add more rows.",
        )
    return tuple(sizes)


def nested_sample(rows: Sequence[T], size: int, draw: int) -> list[T]:
    """Return `size` of `rows` in their order, including every smaller sample of the same draw."""
    return [rows[i] for i in sorted(order(draw, 0, len(rows))[:size])]
