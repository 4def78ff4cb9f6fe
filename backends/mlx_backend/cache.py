"""The two caches that mlx-lm's models run with: a block of new tokens, and slots that decode.

Both follow a shared prefix that is stored once; a slot can also hold a row that does not, and keeps
all its own keys. A row's keys start at column 0 of its slot, so a new row overwrites a finished
one. Left out: windows, recurrent states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np

from .attention import KV, Mask, attend

Prefix: TypeAlias = tuple[KV, ...]  # the keys and values of each layer
GROWTH = 128  # columns added when a slot is full


class Block:
    """One layer's keys and values of new tokens: right-padded rows that follow `prefix`.

    Padding needs no mask: it comes after every real token, and attention is causal.
    """

    def __init__(self, prefix: KV | None) -> None:
        self.prefix = prefix
        self.offset = 0 if prefix is None else prefix[0].shape[1]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        """Store what the layer computed and return it; the prefix stays separate."""
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, **_: Any) -> Mask:
        """Return the causal mask over the block's own tokens."""
        return mx.tri(length, dtype=mx.bool_) if return_array else "causal"

    def attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask
    ) -> mx.array:
        """Attend to the prefix and the block."""
        return attend(queries, keys, values, self.prefix, scale, mask)


def blocks(prefix: Prefix | None, layers: int) -> list[Block]:
    """Return a cache for one forward pass over new tokens."""
    return [Block(None if prefix is None else prefix[i]) for i in range(layers)]


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
        self.width = max(lengths) + 1
        self.columns_R = mx.array(np.asarray(lengths, dtype=np.int32))
        self.offset_R = self.columns_R + start
        self.follows_R = None
        if not all(follows):
            self.follows_R = mx.array(list(follows))
            self.offset_R = mx.where(self.follows_R, self.offset_R, self.columns_R)
        seen_RS = mx.arange(self.width) <= self.columns_R[:, None]
        self.mask = seen_RS[:, None, None, :]
        self.rows_R1 = mx.arange(len(lengths))[:, None]


class Slots:
    """One layer's keys and values of the rows being decoded, (R, kv_heads, columns, head_dim)."""

    cursor: Cursor

    def __init__(self, prefix: KV | None, slots: int, columns: int, like: KV) -> None:
        self.prefix = prefix
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
        return self.keys[:, :, : cursor.width], self.values[:, :, : cursor.width]

    def make_mask(self, length: int, **_: Any) -> mx.array:
        """Return the columns that each row has filled, its new token included."""
        return self.cursor.mask

    def attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Mask
    ) -> mx.array:
        """Attend to the prefix and the row's own columns."""
        follows_R = self.cursor.follows_R
        return attend(queries, keys, values, self.prefix, scale, mask, follows_R)


def _unshared(prefix: mx.array, own: mx.array, follows_R: mx.array) -> mx.array:
    shared = prefix.shape[1]
    before = mx.broadcast_to(prefix[None], (own.shape[0], *prefix.shape))
    following = mx.concatenate([before, own], axis=2)
    alone = mx.pad(own, [(0, 0), (0, 0), (0, shared), (0, 0)])
    return mx.where(follows_R[:, None, None, None], following, alone)
