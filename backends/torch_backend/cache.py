"""Keys and values of rows that are decoded, one new token a row.

All rows attend to the shared prefix as one matrix product,
to their own keys in a slot. Left out: paged caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # keys and values, each (1, kv_heads, T, head_dim)


@dataclass
class Decoding:
    """A slot of keys and values for every row, (room,
    kv_heads, capacity, head_dim) a layer, allocated once.

    A step's rows are the first ones. `lengths` (rows,) says where each row's new token goes.
    """

    room: int  # rows
    capacity: int  # tokens of a row, the shared prefix not counted
    shared: int = 0
    prefix: dict[int, Pair] = field(default_factory=dict)
    slots: dict[int, Pair] = field(default_factory=dict)
    lengths: Tensor = field(default_factory=lambda: torch.empty(0))
    rows: Tensor = field(default_factory=lambda: torch.empty(0))  # 0, 1, ... of this step
    longest: int = 0  # keys read of every row: at least those it has, the new token's included
    unseen: dict[int | None, Tensor] = field(default_factory=dict)  # this step's, by window

    def admit(self, packed: dict[int, Pair], lengths: Sequence[int], copies: int, at: int) -> None:
        """Copy rows laid end to end, `copies` times each, into the slots from `at` on."""
        for layer, pair in packed.items():
            if layer not in self.slots:
                shape = (self.room, pair[0].shape[1], self.capacity, pair[0].shape[3])
                self.slots[layer] = (pair[0].new_zeros(shape), pair[1].new_zeros(shape))
            for slot, source in zip(self.slots[layer], pair, strict=True):
                for i, row in enumerate(torch.split(source[0], list(lengths), dim=1)):
                    slot[at + i * copies : at + (i + 1) * copies, :, : row.shape[1]] = row

    def move(self, source: int, target: int) -> None:
        """Give slot `target` what slot `source` holds."""
        for pair in self.slots.values():
            for slot in pair:
                slot[target] = slot[source]

    def place(self, lengths: Tensor, longest: int) -> None:
        """Say where this step's rows stand."""
        self.lengths, self.longest = lengths, longest
        self.rows = torch.arange(len(lengths), device=lengths.device)
        self.unseen.clear()

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """q, k, v arrive as one packed row: (1, heads, rows, head_dim)."""
        keys, values = self.slots[layer]
        rows, kv_heads, dim = q.shape[2], k.shape[1], q.shape[3]
        keys[self.rows, :, self.lengths] = k[0].transpose(0, 1)
        values[self.rows, :, self.lengths] = v[0].transpose(0, 1)
        grouped = (
            q[0].transpose(0, 1).reshape(rows * kv_heads, -1, dim)
        )  # each with the heads of one key head
        own_k, own_v = (slot[:rows, :, : self.longest].flatten(0, 1) for slot in (keys, values))
        # Scale and mask are part of the product: on a GPU each would be a kernel of its own.
        scores = torch.baddbmm(
            self._unseen(window, kv_heads, q.dtype), grouped, own_k.transpose(1, 2), alpha=scale
        )
        if layer not in self.prefix:
            mixed = torch.bmm(softmax(scores), own_v)
        else:
            mixed = self._with_prefix(layer, grouped, scores, own_v, scale, window)
        return mixed.reshape(rows, -1, dim).transpose(0, 1)[None]

    def _unseen(self, window: int | None, kv_heads: int, dtype: torch.dtype) -> Tensor:
        """-inf where a row may not see one of its own keys
        (rows * kv_heads, 1, longest), else 0; of all layers.
        """
        known = self.unseen.get(window)
        if known is None:
            places = torch.arange(self.longest, device=self.lengths.device)
            gone = places[None] > self.lengths[:, None]
            if window is not None:
                gone |= places[None] <= self.lengths[:, None] - window
            known = torch.zeros(gone.shape, dtype=dtype, device=gone.device).masked_fill(
                gone, float("-inf")
            )
            known = self.unseen[window] = known.repeat_interleave(kv_heads, dim=0)[:, None]
        return known

    def _with_prefix(
        self,
        layer: int,
        grouped: Tensor,
        own: Tensor,
        own_v: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """One softmax over shared and own keys; the shared
        ones are read once for all rows (arXiv 2402.05099).
        """
        k, v = self.prefix[layer][0][0], self.prefix[layer][1][0]
        kv_heads, (each, heads, _) = k.shape[0], grouped.shape
        rows = each // kv_heads

        def merge(x: Tensor) -> Tensor:
            """(rows * kv_heads, heads, width) to (kv_heads, rows
            * heads, width): all rows against the one prefix.
            """
            return (
                x.view(rows, kv_heads, heads, -1)
                .transpose(0, 1)
                .reshape(kv_heads, rows * heads, -1)
            )

        def split(x: Tensor) -> Tensor:
            """The inverse of `merge`."""
            return x.view(kv_heads, rows, heads, -1).transpose(0, 1).reshape(each, heads, -1)

        scores = split(
            torch.baddbmm(
                grouped.new_empty(()), merge(grouped), k.transpose(1, 2), beta=0, alpha=scale
            )
        )
        if window is not None:
            gone = (
                torch.arange(self.shared, device=own.device)[None]
                <= self.lengths[:, None] + self.shared - window
            )
            scores = scores.masked_fill(
                gone.repeat_interleave(kv_heads, dim=0)[:, None], float("-inf")
            )
        weights = softmax(torch.cat((scores, own), dim=-1))
        shared = split(torch.bmm(merge(weights[..., : self.shared]), v))
        return torch.baddbmm(shared, weights[..., self.shared :], own_v)


def softmax(scores: Tensor) -> Tensor:
    """Over the last dimension, computed in float32."""
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
