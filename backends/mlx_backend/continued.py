"""The cache for one pass over what follows kept rows: several at once, each of another length.

Left out: windows, so that where layers have one, rows are continued one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from .attention import KV, Mask, attend


class Continued:
    """One layer's keys and values of new tokens: padded rows, each after its own earlier ones.

    The earlier ones are padded too, and a mask hides that.
    """

    def __init__(self, knowns: Sequence[KV]) -> None:
        lengths = [keys.shape[1] for keys, _ in knowns]
        self.longest, self.offset = max(lengths), mx.array(lengths, mx.int32)
        keys, values = zip(*knowns, strict=True)
        self.before = _padded(keys, self.longest), _padded(values, self.longest)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> KV:
        """Store what the layer computed; return it after the earlier ones."""
        self.keys, self.values = keys, values
        return self.keys_and_values()

    def keys_and_values(self) -> KV:
        """Return all keys and values, for a layer that attends to the same too."""
        keys, values = self.before
        all_keys = mx.concatenate([keys, self.keys], axis=2)
        return all_keys, mx.concatenate([values, self.values], axis=2)

    def make_mask(self, length: int, **_: Any) -> mx.array:
        """Return the keys that each token sees, bool (R, 1, L, S)."""
        before_RS = mx.arange(self.longest) < self.offset[:, None]
        rows = before_RS.shape[0]
        before_RLS = mx.broadcast_to(before_RS[:, None], (rows, length, self.longest))
        own_RLS = mx.broadcast_to(mx.tri(length, dtype=mx.bool_), (rows, length, length))
        return mx.concatenate([before_RLS, own_RLS], axis=2)[:, None]

    def attend(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        scale: float,
        mask: Mask = None,
        **more: Any,
    ) -> mx.array:
        """Attend to the row's earlier keys and to the block."""
        del mask  # a model may cut it
        seen = self.make_mask(queries.shape[2])
        return attend(queries, keys, values, None, scale, seen, **more)


def _padded(parts: Sequence[mx.array], longest: int) -> mx.array:
    """Stack (kv_heads, T, head_dim) of several rows, padded to `longest` tokens."""
    return mx.stack([mx.pad(x, [(0, 0), (0, longest - x.shape[1]), (0, 0)]) for x in parts])
