"""Attention over ragged rows laid end to end without padding, a shared prefix once before its rows.

It is exact: the prefix's keys and values are in the graph once, and every row attends to them
(arXiv 2506.05433). Left out: hand-written kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, repeat

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .bucketed_attention import PackedRow, Rectangles, rectangles
from .cache import KV
from .scores import Scores


@dataclass
class Packed:
    """Trees end to end, `(shared, lengths)` each: a prefix, then the rows that see it.

    The prefix has `shared` tokens, the rows `lengths`. `prefix` holds an earlier pass's keys and
    values by layer instead, seen by trees that share nothing; `keep` collects this pass's. Where
    each row has a prefix of its own, these stand there end to end, and `befores` are their lengths.
    """

    trees: tuple[tuple[int, tuple[int, ...]], ...]
    prefix: dict[int, KV] = field(default_factory=dict)
    keep: dict[int, KV] | None = None
    befores: tuple[int, ...] = ()
    masks: dict[tuple[int, int, int | None], Tensor] = field(default_factory=dict)
    laid: dict[int | None, Rectangles] = field(default_factory=dict)  # by window

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        if self.keep is not None:
            self.keep[layer] = (k, v)
        way = self.by_rectangles if q.is_cuda else self.by_rows
        return way(layer, q, k, v, scores)

    def by_rectangles(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        """Attend all rows in a few calls, for devices that wait for launches."""
        earlier = 0
        if layer in self.prefix:
            before = self.prefix[layer]
            earlier = before[0].shape[2]
            k, v = torch.cat((before[0], k), dim=2), torch.cat((before[1], v), dim=2)
        laid = self.laid.get(scores.window)
        if laid is None:
            laid = rectangles(self._rows(earlier), earlier, scores.window, q.device)
            self.laid[scores.window] = laid
        return laid.attend(q, k, v, scores)

    def _rows(self, earlier: int) -> list[PackedRow]:
        rows: list[PackedRow] = []
        start = 0
        if self.befores:
            each = zip(self._lengths, self._places, self.befores, strict=True)
            for length, place, before in each:
                rows.append(PackedRow(start, length, place, before))
                start += length
            return rows
        for shared, lengths in self.trees:
            root = start
            if shared:
                rows.append(PackedRow(root, shared))
                start += shared
            for length in lengths:
                rows.append(PackedRow(start, length, root if shared else 0, shared or earlier))
                start += length
        return rows

    @property
    def _lengths(self) -> list[int]:
        """The rows' lengths."""
        return [length for _, lengths in self.trees for length in lengths]

    @property
    def _places(self) -> list[int]:
        """Where the rows' own prefixes begin."""
        return [0, *accumulate(self.befores[:-1])]

    def _prefixes(self, layer: int) -> Iterator[KV | None]:
        """Yield what each row sees of the earlier pass."""
        before = self.prefix.get(layer)
        if before is None or not self.befores:
            yield from repeat(before)
        else:
            keys, values = (torch.split(x, list(self.befores), dim=2) for x in before)
            yield from zip(keys, values, strict=True)

    def by_rows(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        """Attend row by row without padding, for devices that are slow at arithmetic."""
        parts = []
        start, prefixes = 0, self._prefixes(layer)
        for shared, lengths in self.trees:
            before = None
            if shared:
                rows = slice(start, start + shared)
                before = (k[:, :, rows], v[:, :, rows])
                parts.append(self._row(q[:, :, rows], before, None, scores))
                start += shared
            for length in lengths:
                rows = slice(start, start + length)
                own = k[:, :, rows], v[:, :, rows]
                seen = before if shared else next(prefixes)
                parts.append(self._row(q[:, :, rows], own, seen, scores))
                start += length
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _row(self, q: Tensor, own: KV, before: KV | None, scores: Scores) -> Tensor:
        if before is not None:
            own = (torch.cat((before[0], own[0]), dim=2), torch.cat((before[1], own[1]), dim=2))
        (k, v), window = own, scores.window
        causal = before is None and (window is None or q.shape[2] <= window)
        mask = None if causal else self._mask(q.shape[2], k.shape[2], window, q.device)
        if not scores.plain:
            return scores.attend(q, k, v, mask)
        gqa = k.shape[1] != q.shape[1]
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scores.scale, enable_gqa=gqa
        )

    def _mask(self, queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
        """Return the causal mask of the last `queries` of `keys` positions within `window`, (L, S).

        It is the same for every layer.
        """
        mask_LS = self.masks.get((queries, keys, window))
        if mask_LS is None:
            mask_LS = torch.ones(queries, keys, dtype=torch.bool, device=device)
            mask_LS = mask_LS.tril(keys - queries)
            if window is not None:
                mask_LS &= mask_LS.new_ones(queries, keys).triu(keys - queries - window + 1)
            self.masks[(queries, keys, window)] = mask_LS
        return mask_LS
