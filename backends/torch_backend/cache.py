"""Attention over what a layout says each token may see, with the keys and values kept there.

Two layouts. `Packed`: ragged rows laid end to end without padding, a prefix that some share
standing once before them (exact: arXiv 2506.05433). `Decoding`: one new token a row; all
rows attend to the shared prefix as one matrix product, to their own keys in a slot.
Left out: paged caches and hand-written kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from offapi.errors import BackendError

from .rectangles import Rectangles, Row, rectangles

Pair = tuple[Tensor, Tensor]  # keys and values, each (1, kv_heads, T, head_dim)


@dataclass
class Packed:
    """Trees end to end, `(shared, lengths)` each: `shared` tokens of prefix, then rows of `lengths` that see it.

    `prefix` holds an earlier pass's keys and values by layer instead, seen by trees that
    share nothing; `keep` collects this pass's.
    """

    trees: tuple[tuple[int, tuple[int, ...]], ...]
    prefix: dict[int, Pair] = field(default_factory=dict)
    keep: dict[int, Pair] | None = None
    masks: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict)
    laid: dict[int | None, Rectangles] = field(default_factory=dict)  # by window

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        if self.keep is not None:
            self.keep[layer] = (k, v)
        return (self.by_rectangles if q.is_cuda else self.by_rows)(layer, q, k, v, scale, window)

    def by_rectangles(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """All rows in a few calls: for devices that wait for launches."""
        earlier = 0
        if layer in self.prefix:
            before = self.prefix[layer]
            earlier = before[0].shape[2]
            k, v = torch.cat((before[0], k), dim=2), torch.cat((before[1], v), dim=2)
        if window not in self.laid:
            self.laid[window] = rectangles(self._rows(earlier), earlier, window, q.device)
        return self.laid[window].attend(q, k, v, scale)

    def _rows(self, earlier: int) -> list[Row]:
        rows: list[Row] = []
        start = 0
        for shared, lengths in self.trees:
            root = start
            if shared:
                rows.append(Row(root, shared))
                start += shared
            for length in lengths:
                rows.append(Row(start, length, root if shared else 0, shared or earlier))
                start += length
        return rows

    def by_rows(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """A call for each row, nothing padded: for devices whose arithmetic is dear."""
        parts = []
        start = 0
        for shared, lengths in self.trees:
            before = self.prefix.get(layer)
            if shared:
                rows = slice(start, start + shared)
                before = (k[:, :, rows], v[:, :, rows])
                parts.append(self._row(q[:, :, rows], before, None, scale, window))
                start += shared
            for length in lengths:
                rows = slice(start, start + length)
                parts.append(self._row(q[:, :, rows], (k[:, :, rows], v[:, :, rows]), before, scale, window))
                start += length
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _row(self, q: Tensor, own: Pair, before: Pair | None, scale: float, window: int | None) -> Tensor:
        if before is not None:
            own = (torch.cat((before[0], own[0]), dim=2), torch.cat((before[1], own[1]), dim=2))
        k, v = own
        gqa = k.shape[1] != q.shape[1]
        if before is None and (window is None or q.shape[2] <= window):
            return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
        mask = self._mask(q.shape[2], k.shape[2], window, q.device)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=gqa)

    def _mask(self, queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
        """Causal for the last `queries` of `keys` positions, within `window`; the same for every layer."""
        known = self.masks.get((queries, keys, window))
        if known is None:
            known = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
            if window is not None:
                known &= known.new_ones(queries, keys).triu(keys - queries - window + 1)
            self.masks[(queries, keys, window)] = known
        return known


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


Layout = Packed | Decoding


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    layout: Layout,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """The attention function transformers calls in every layer; (1, heads, T, dim) in, (1, T, heads, dim) out."""
    odd = [name for name in ("softcap", "s_aux") if rest.get(name) is not None]
    if odd or attention_mask is not None:
        raise BackendError(
            f"this architecture's attention needs {odd or 'a mask of its own'}.", next_step="Use another."
        )
    layer: Any = module.layer_idx
    return layout.attend(layer, query, key, value, scaling, sliding_window).transpose(1, 2), None
