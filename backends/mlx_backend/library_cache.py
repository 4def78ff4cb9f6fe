"""mlx-lm's own caches of a batch of rows that advance together: rows are taken by their number.

A cache of any kind holds arrays whose first axis is the batch, and numbers that all rows share.
Left out: rows of different lengths in one batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import _BaseCache

Caches = list[Any]  # mlx-lm's, one for each layer that has state


def take_rows(caches: Caches, rows: Sequence[int]) -> Caches:
    """Return a copy that has `rows` of the batch, in that order; a row may come several times."""
    rows_R = mx.array(list(rows))
    return [_changed(cache, lambda x_R: x_R[rows_R]) for cache in caches]


def _changed(value: Any, change: Callable[[mx.array], mx.array]) -> Any:
    """Return a copy of a cache, or of what it holds, whose arrays are changed.

    Caches write into their arrays: none may be shared with the copy.
    """
    if isinstance(value, mx.array):
        return change(value) if value.ndim else value
    if isinstance(value, list | tuple):
        return type(value)(_changed(each, change) for each in value)
    if not isinstance(value, _BaseCache):
        return value
    made = copy.copy(value)
    for name, held in vars(value).items():
        setattr(made, name, _changed(held, change))
    return made


def arrays(value: Any) -> Iterator[mx.array]:
    """Yield every array that caches hold."""
    if isinstance(value, mx.array):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from arrays(each)
    elif isinstance(value, _BaseCache):
        yield from arrays(list(vars(value).values()))
