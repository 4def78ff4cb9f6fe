"""The two caches that mlx-lm's models run with: a block of new tokens, and slots that decode.

Both follow a shared prefix that is stored once; a slot can also hold a row that does not, and keeps
all its own keys. A row's keys start at column 0 of its slot, so a new row overwrites a finished
one. Each layer's window is the cache's own: some of mlx-lm's models leave it out. Left out:
recurrent states, and dropping keys that no window reaches any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np

from .attention import KV, Mask, attend
from .continued import Continued

Prefix: TypeAlias = tuple[KV, ...]  # the keys and values of each layer
GROWTH = 128  # columns added when a slot is full


class Block:
    """One layer's keys and values of new tokens: right-padded rows that follow `prefix`.

    Padding needs no mask: it comes after every real token, and attention is causal.
    """

    def __init__(self, prefix: KV | None, window: int | None = None) -> None:
        self.prefix, self.window = prefix, window
        self.offset = 0 if prefix is None else prefix[0].shape[1]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        """Store what the layer computed and return it; the prefix stays separate."""
        self.keys, self.values = keys, values
        return keys, values

    def keys_and_values(self) -> KV:
        """Return what the layer has stored, for a layer that attends to the same."""
        return self.keys, self.values

    def make_mask(self, length: int, return_array: bool = False, **_: Any) -> Mask:
        """Return the causal mask over the block's own tokens; `attend` knows the window."""
        return mx.tri(length, dtype=mx.bool_) if return_array else "causal"

    def attend(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        scale: float,
        mask: Mask = None,
        **more: Any,
    ) -> mx.array:
        """Attend to the prefix and the block."""
        del mask  # it lacks the prefix
        return attend(
            queries, keys, values, self.prefix, scale, "causal", window=self.window, **more
        )


class Following:
    """The cache of a layer that attends to the keys and values of another (Gemma 4)."""

    def __init__(self, cache: Block | Continued | Slots) -> None:
        self.attend, self.make_mask = cache.attend, cache.make_mask
        self.offset = cache.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        """Return the other layer's keys and values, which are given."""
        return keys, values


def blocks(prefix: Prefix | None, windows: Sequence[int | None]) -> list[Block]:
    """Return a cache for one forward pass over new tokens, from each layer's window."""
    shared: Sequence[KV | None] = (None,) * len(windows) if prefix is None else prefix
    return [Block(kv, window) for kv, window in zip(shared, windows, strict=True)]


def extend(prefix: Prefix | None, caches: Sequence[Block]) -> Prefix:
    """Return `prefix` followed by the single row that `caches` hold."""
    own = tuple((cache.keys[0], cache.values[0]) for cache in caches)
    return own if prefix is None else join([prefix, own])


def join(parts: Sequence[Prefix]) -> Prefix:
    """Return the keys and values of consecutive tokens as one."""
    if len(parts) == 1:
        return parts[0]
    layers = zip(*parts, strict=True)
    return tuple((_end_to_end(layer, 0), _end_to_end(layer, 1)) for layer in layers)


def _end_to_end(parts: Sequence[KV], which: int) -> mx.array:
    return mx.concatenate([part[which] for part in parts], axis=1)


def cut(prefix: Prefix, start: int, stop: int) -> Prefix:
    """Return a copy of the part of the tokens from `start` to `stop`."""
    part = tuple(
        (mx.contiguous(keys[:, start:stop]), mx.contiguous(values[:, start:stop]))
        for keys, values in prefix
    )
    mx.eval(part)  # or it would hold on to all
    return part


def size(prefix: Prefix) -> int:
    """Return how many bytes `prefix` takes."""
    return sum(keys.nbytes + values.nbytes for keys, values in prefix)


class Cursor:
    """Where each slot writes next, for all layers of one decoding step.

    `follows` says which slots' rows follow the shared prefix of `start` tokens.
    """

    def __init__(self, start: int, lengths: Sequence[int], follows: Sequence[bool]) -> None:
        self.width, self.start = max(lengths) + 1, start
        self.columns_R = mx.array(np.asarray(lengths, dtype=np.int32))
        self.offset_R = self.columns_R + start
        self.follows_R = None
        if not all(follows):
            self.follows_R = mx.array(list(follows))
            self.offset_R = mx.where(self.follows_R, self.offset_R, self.columns_R)
        self.rows_R1 = mx.arange(len(lengths))[:, None]
        self.masks: dict[int | None, tuple[mx.array, mx.array | None]] = {}

    def sight(self, window: int | None) -> tuple[mx.array, mx.array | None]:
        """Return the columns and the prefix's keys that each row sees, bool (R, 1, 1, S).

        The columns are those that it has filled, its new token included. None: the whole prefix.
        """
        if window not in self.masks:
            places = mx.arange(self.width)
            near_RS, far_RS = places <= self.columns_R[:, None], None
            if self.follows_R is not None:
                far_RS = mx.broadcast_to(self.follows_R[:, None], (near_RS.shape[0], self.start))
            if window is not None:
                near_RS = near_RS & (places > self.columns_R[:, None] - window)
                reached_RS = mx.arange(self.start) > self.offset_R[:, None] - window
                far_RS = reached_RS if far_RS is None else far_RS & reached_RS
            far = None if far_RS is None else far_RS[:, None, None, :]
            self.masks[window] = near_RS[:, None, None, :], far
        return self.masks[window]


class Slots:
    """One layer's keys and values of the rows being decoded, (R, kv_heads, columns, head_dim)."""

    cursor: Cursor

    def __init__(
        self,
        prefix: KV | None,
        slots: int,
        columns: int,
        like: KV,
        window: int | None = None,
    ) -> None:
        self.prefix, self.window = prefix, window
        self.keys, self.values = (
            mx.zeros((slots, x.shape[0], columns, x.shape[2]), x.dtype) for x in like
        )

    @property
    def offset(self) -> mx.array:
        """The position of each slot's next token, shape (R,)."""
        return self.cursor.offset_R

    def put(self, slot: int, own: KV) -> None:
        """Start a row in `slot` with the keys and values of its prompt."""
        self.reserve(own[0].shape[1] + 1)
        self.keys[slot, :, : own[0].shape[1]] = own[0]
        self.values[slot, :, : own[1].shape[1]] = own[1]

    def take(self, slots_R: mx.array) -> None:
        """Keep only `slots_R`, in that order."""
        self.keys, self.values = self.keys[slots_R], self.values[slots_R]

    def add(self, slots: int) -> None:
        """Add free slots after the others."""
        pad = [(0, slots), (0, 0), (0, 0), (0, 0)]
        self.keys, self.values = mx.pad(self.keys, pad), mx.pad(self.values, pad)

    def row(self, slot: int, length: int) -> KV:
        """Return the first `length` tokens in `slot`, without the prefix."""
        return self.keys[slot, :, :length], self.values[slot, :, :length]

    def unshare(self, follows_R: mx.array) -> None:
        """Give the rows that follow the prefix a copy of their own, and drop it."""
        assert self.prefix is not None
        self.keys = _unshared(self.prefix[0], self.keys, follows_R)
        self.values = _unshared(self.prefix[1], self.values, follows_R)
        self.prefix = None

    def reserve(self, columns: int) -> None:
        """Make room for `columns` tokens per row."""
        missing = columns - self.keys.shape[2]
        if missing > 0:
            pad = [(0, 0), (0, 0), (0, -(-missing // GROWTH) * GROWTH), (0, 0)]
            self.keys, self.values = mx.pad(self.keys, pad), mx.pad(self.values, pad)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        """Append one token to every row; return all columns in use."""
        cursor = self.cursor
        self.reserve(cursor.width)
        place = (cursor.rows_R1, mx.arange(keys.shape[1])[None], cursor.columns_R[:, None])
        self.keys[place], self.values[place] = keys[:, :, 0], values[:, :, 0]
        return self.keys_and_values()

    def keys_and_values(self) -> KV:
        """Return all columns in use, for a layer that attends to the same too."""
        width = self.cursor.width
        return self.keys[:, :, :width], self.values[:, :, :width]

    def make_mask(self, length: int, **_: Any) -> mx.array:
        """Return the columns that each row sees."""
        return self.cursor.sight(self.window)[0]

    def attend(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        scale: float,
        mask: Mask = None,
        **more: Any,
    ) -> mx.array:
        """Attend to the prefix and the row's own columns."""
        mask, far = self.cursor.sight(self.window)
        return attend(queries, keys, values, self.prefix, scale, mask, far, **more)


def _unshared(prefix: mx.array, own: mx.array, follows_R: mx.array) -> mx.array:
    shared = prefix.shape[1]
    before = mx.broadcast_to(prefix[None], (own.shape[0], *prefix.shape))
    following = mx.concatenate([before, own], axis=2)
    alone = mx.pad(own, [(0, 0), (0, 0), (0, shared), (0, 0)])
    return mx.where(follows_R[:, None, None, None], following, alone)
