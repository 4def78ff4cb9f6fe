"""Keys and values of rows that are decoded, one new token a row.

All rows attend to the shared prefix as one matrix product, to their own keys in a slot. Left out: paged caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # keys and values, each (1, kv_heads, T, head_dim)


@dataclass
class Decoding:
    """A slot of keys and values for every row, (room, kv_heads, capacity, head_dim) a layer, allocated once.

    A step's rows are the first ones. `lengths` (rows,) says where each row's new token goes.
    """

    room: int  # rows
    capacity: int  # tokens of a row, the shared prefix not counted
    shared: int = 0
    prefix: dict[int, Pair] = field(default_factory=dict)
    slots: dict[int, Pair] = field(default_factory=dict)
    lengths: Tensor = field(default_factory=lambda: torch.empty(0))
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
        self.unseen.clear()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """q, k, v arrive as one packed row: (1, heads, rows, head_dim)."""
        keys, values = self.slots[layer]
        rows, kv_heads, dim = q.shape[2], k.shape[1], q.shape[3]
        at = torch.arange(rows, device=q.device)
        keys[at, :, self.lengths] = k[0].transpose(0, 1)
        values[at, :, self.lengths] = v[0].transpose(0, 1)
        grouped = q[0].transpose(0, 1).reshape(rows, kv_heads, -1, dim)  # (rows, kv, heads per kv, dim)
        own_k, own_v = keys[:rows, :, : self.longest], values[:rows, :, : self.longest]
        scores = torch.matmul(grouped, own_k.transpose(2, 3)).float() * scale
        scores = scores.masked_fill(self._unseen(window)[:, None, None], float("-inf"))
        if layer not in self.prefix:
            mixed = torch.matmul(scores.softmax(-1).to(q.dtype), own_v)
        else:
            mixed = self._with_prefix(layer, grouped, scores, own_v, scale, window)
        return mixed.reshape(rows, -1, dim).transpose(0, 1)[None]

    def _unseen(self, window: int | None) -> Tensor:
        """Which of its own keys a row may not see (rows, longest); the same for every layer of one window."""
        known = self.unseen.get(window)
        if known is None:
            places = torch.arange(self.longest, device=self.lengths.device)
            known = places[None] > self.lengths[:, None]
            if window is not None:
                known |= places[None] <= self.lengths[:, None] - window
            self.unseen[window] = known
        return known

    def _with_prefix(
        self, layer: int, grouped: Tensor, own: Tensor, own_v: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """One softmax over shared and own keys; the shared ones are read once for all rows (arXiv 2402.05099)."""
        rows, kv_heads, heads, dim = grouped.shape
        k, v = self.prefix[layer]
        flat = grouped.transpose(0, 1).reshape(kv_heads, rows * heads, dim)
        scores = torch.matmul(flat, k[0].transpose(1, 2)).float() * scale
        scores = scores.reshape(kv_heads, rows, heads, self.shared).transpose(0, 1)
        if window is not None:
            gone = torch.arange(self.shared, device=own.device)[None] <= self.lengths[:, None] + self.shared - window
            scores = scores.masked_fill(gone[:, None, None], float("-inf"))
        weights = torch.cat((scores, own), dim=-1).softmax(-1).to(grouped.dtype)
        first = weights[..., : self.shared].transpose(0, 1).reshape(kv_heads, rows * heads, self.shared)
        ours = torch.matmul(first, v[0]).reshape(kv_heads, rows, heads, dim).transpose(0, 1)
        return ours + torch.matmul(weights[..., self.shared :], own_v)
