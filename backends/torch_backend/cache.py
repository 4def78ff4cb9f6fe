"""Keys and values of rows that are being decoded, one new token per row.

All rows attend to the shared prefix in one matrix product, and to their own keys in a slot; a mask
hides the prefix from rows that do not follow it. Left out: paged caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .scores import Scores

KV = tuple[Tensor, Tensor]  # keys and values, each (1, kv_heads, T, head_dim)
Run = dict[int, KV]  # those of consecutive tokens, by layer
GROWTH = 128  # tokens by which slots grow once they are in use


@dataclass
class Decoding:
    """A slot of keys and values for every row, (room, kv_heads, capacity, head_dim) per layer.

    A step's rows are the first ones. `lengths_R` says where each row's new token goes.
    """

    room: int = 0  # slots
    capacity: int = 0  # tokens per slot, without the shared prefix
    shared: int = 0
    prefix: Run = field(default_factory=dict)
    slots: Run = field(default_factory=dict)
    generation: int = 0  # changes with the place of slots or prefix in memory
    lengths_R: Tensor = field(default_factory=lambda: torch.empty(0))
    rows_R: Tensor = field(default_factory=lambda: torch.empty(0))  # 0, 1, ... in this step
    longest: int = 0  # keys read of each row: at least all that it has, its new token's included
    follows_R: Tensor | None = None  # which rows see the prefix in this step; None: all
    unseen: dict[int | None, Tensor] = field(default_factory=dict)  # of this step, by window

    def follow(self, prefix: Run, shared: int) -> None:
        """Set the prefix that rows share from now on."""
        self.prefix, self.shared = prefix, shared
        self.generation += 1

    def reserve(self, room: int, capacity: int) -> None:
        """Have at least `room` slots of `capacity` tokens; what they hold stays."""
        if room <= self.room and capacity <= self.capacity:
            return
        if self.slots and capacity > self.capacity:
            capacity = -(-capacity // GROWTH) * GROWTH
        self.room, self.capacity = max(room, self.room), max(capacity, self.capacity)
        self.generation += 1
        for layer, pair in self.slots.items():
            keys, values = (self._empty(old) for old in pair)
            for new, old in zip((keys, values), pair, strict=True):
                new[: old.shape[0], :, : old.shape[2]] = old
            self.slots[layer] = keys, values

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_zeros((self.room, like.shape[1], self.capacity, like.shape[3]))

    def admit(
        self,
        packed: Run,
        lengths: Sequence[int],
        copies: Sequence[int],
        at: int,
        columns: Sequence[int] = (),
    ) -> None:
        """Copy rows laid end to end into the slots from `at` on.

        Each begins at its column, by default 0; `copies` says into how many slots it goes.
        """
        for layer, pair in packed.items():
            if layer not in self.slots:
                self.slots[layer] = self._empty(pair[0]), self._empty(pair[1])
            for slot, source in zip(self.slots[layer], pair, strict=True):
                first = at
                rows = torch.split(source[0], list(lengths), dim=1)
                places = columns or [0] * len(rows)
                for row, count, column in zip(rows, copies, places, strict=True):
                    slot[first : first + count, :, column : column + row.shape[1]] = row
                    first += count

    def read(self, row: int, follows: bool, start: int, stop: int) -> Run:
        """Return a copy of a row's keys and values at positions `start` to `stop`."""
        shared = self.shared if follows else 0
        run: Run = {}
        for layer, pair in self.slots.items():
            parts = [
                slot[row : row + 1, :, max(start - shared, 0) : max(stop - shared, 0)]
                for slot in pair
            ]
            if start < shared:
                prefix = [x[:, :, start : min(stop, shared)] for x in self.prefix[layer]]
                parts = [torch.cat(pair, dim=2) for pair in zip(prefix, parts, strict=True)]
            run[layer] = parts[0].clone(), parts[1].clone()
        return run

    def move(self, source: int, target: int) -> None:
        """Copy what slot `source` holds to slot `target`."""
        for pair in self.slots.values():
            for slot in pair:
                slot[target] = slot[source]

    def place(self, lengths_R: Tensor, longest: int, follows_R: Tensor | None = None) -> None:
        """Set where this step's rows write, how many keys they read, and who sees the prefix."""
        self.lengths_R, self.longest, self.follows_R = lengths_R, longest, follows_R
        self.rows_R = torch.arange(len(lengths_R), device=lengths_R.device)
        self.unseen.clear()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        """Attend with q, k, v that arrive as one packed row: (1, heads, R, head_dim)."""
        keys, values = self.slots[layer]
        rows, kv_heads, dim = q.shape[2], k.shape[1], q.shape[3]
        keys[self.rows_R, :, self.lengths_R] = k[0].transpose(0, 1)
        values[self.rows_R, :, self.lengths_R] = v[0].transpose(0, 1)
        # The query heads that share a key head stand together.
        grouped = q[0].transpose(0, 1).reshape(rows * kv_heads, -1, dim)
        own_k, own_v = (slot[:rows, :, : self.longest].flatten(0, 1) for slot in (keys, values))
        unseen = self._unseen(scores.window, kv_heads, q.dtype)
        own = scores.masked(unseen, grouped, own_k.transpose(1, 2))
        if layer not in self.prefix:
            mixed = torch.bmm(scores.softmax(own, scores.grouped_sinks(rows, kv_heads)), own_v)
        else:
            mixed = self._with_prefix(layer, grouped, own, own_v, scores)
        return mixed.reshape(rows, -1, v.shape[3]).transpose(0, 1)[None]

    def _unseen(self, window: int | None, kv_heads: int, dtype: torch.dtype) -> Tensor:
        """Return (R * kv_heads, 1, S): -inf where a row may not see one of its own keys, else 0.

        It is the same for all layers.
        """
        unseen = self.unseen.get(window)
        if unseen is None:
            places_S = torch.arange(self.longest, device=self.lengths_R.device)
            gone_RS = places_S[None] > self.lengths_R[:, None]
            if window is not None:
                gone_RS |= places_S[None] <= self.lengths_R[:, None] - window
            zeros_RS = torch.zeros(gone_RS.shape, dtype=dtype, device=gone_RS.device)
            unseen_RS = zeros_RS.masked_fill(gone_RS, float("-inf"))
            unseen = self.unseen[window] = unseen_RS.repeat_interleave(kv_heads, dim=0)[:, None]
        return unseen

    def _with_prefix(
        self, layer: int, grouped: Tensor, own: Tensor, own_v: Tensor, kind: Scores
    ) -> Tensor:
        """Return the values mixed by one softmax over shared and own keys.

        The shared keys are read once for all rows (arXiv 2402.05099).
        """
        k, v = self.prefix[layer][0][0], self.prefix[layer][1][0]
        kv_heads, (groups, heads, _) = k.shape[0], grouped.shape
        rows = groups // kv_heads

        def merge(x: Tensor) -> Tensor:
            """Reshape (R * kv_heads, heads, width) to (kv_heads, R * heads, width)."""
            return (
                x.view(rows, kv_heads, heads, -1)
                .transpose(0, 1)
                .reshape(kv_heads, rows * heads, -1)
            )

        def split(x: Tensor) -> Tensor:
            """The inverse of `merge`."""
            return x.view(kv_heads, rows, heads, -1).transpose(0, 1).reshape(groups, heads, -1)

        scores = split(
            torch.baddbmm(
                grouped.new_empty(()), merge(grouped), k.transpose(1, 2), beta=0, alpha=kind.scale
            )
        )
        scores = kind.capped(scores)
        if kind.window is not None:
            places_S = torch.arange(self.shared, device=own.device)
            gone_RS = places_S[None] <= self.lengths_R[:, None] + self.shared - kind.window
            gone = gone_RS.repeat_interleave(kv_heads, dim=0)[:, None]
            scores = scores.masked_fill(gone, float("-inf"))
        if self.follows_R is not None:
            blind = ~self.follows_R.repeat_interleave(kv_heads)[:, None, None]
            scores = scores.masked_fill(blind, float("-inf"))
        weights = kind.softmax(torch.cat((scores, own), dim=-1), kind.grouped_sinks(rows, kv_heads))
        shared = split(torch.bmm(merge(weights[..., : self.shared]), v))
        return torch.baddbmm(shared, weights[..., self.shared :], own_v)


def cut(run: Run, start: int, stop: int) -> Run:
    """Return a copy of some tokens' part of `run`."""
    return {
        layer: (k[:, :, start:stop].clone(), v[:, :, start:stop].clone())
        for layer, (k, v) in run.items()
    }


def join(runs: Sequence[Run]) -> Run:
    """Put consecutive runs together."""
    if len(runs) == 1:
        return runs[0]
    joined: Run = {}
    for layer in runs[0]:
        keys, values = zip(*(run[layer] for run in runs), strict=True)
        joined[layer] = torch.cat(keys, dim=2), torch.cat(values, dim=2)
    return joined


def size_of(run: Run) -> int:
    """Return the bytes of `run`."""
    return sum(k.nbytes + v.nbytes for k, v in run.values())
