"""Attention of packed rows in rectangles of similar rows: few large kernels, not many small ones.

A GPU waits for the launches of row after row. Here one call takes all rows whose length and prefix
round up to the same powers of two, so padding at most doubles either. Left out: padding the other
layers' work, which stays packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .scores import Scores


@dataclass(frozen=True)
class PackedRow:
    """A row of `length` tokens from place `start` of the pack on.

    It also sees the `before` keys from place `prefix` on.
    """

    start: int
    length: int
    prefix: int = 0
    before: int = 0


@dataclass(frozen=True)
class Rectangle:
    """Rows attended in one call: R rows of L queries and S keys, the prefix's keys first."""

    queries: Tensor  # (R * L,) places in the pack; padding repeats place 0
    keys: Tensor  # (R * S,) places in the pack
    shape: tuple[int, int, int]  # R, L, S
    real: Tensor  # which of the R * L queries are not padding
    seen: Tensor | None  # (R, 1, L, S) bool; None: causal, without a prefix


@dataclass(frozen=True)
class Rectangles:
    """All rows of a pack."""

    parts: tuple[Rectangle, ...]
    order: Tensor  # where each place of the pack is in the parts' real queries, end to end

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        """Attend all rows, part by part; return (1, heads, L, head_dim).

        `q` is (1, heads, L, head_dim); `k` and `v` are (1, kv_heads, S, head_dim), with all places
        that the rows name.
        """
        flat_q, flat_k, flat_v = (x[0].transpose(0, 1) for x in (q, k, v))  # (T, heads, D)
        outputs = []
        for part in self.parts:
            rows, length, keys = part.shape
            own_q = _take(flat_q, part.queries, rows, length)
            own_k, own_v = (_take(x, part.keys, rows, keys) for x in (flat_k, flat_v))
            mixed = _mix(own_q, own_k, own_v, part.seen, scores)
            outputs.append(mixed.transpose(1, 2).flatten(0, 1).index_select(0, part.real))
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return output.index_select(0, self.order).transpose(0, 1)[None]


def _mix(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scores: Scores) -> Tensor:
    """Attend the rows of one rectangle, (R, heads, L, head_dim)."""
    if not scores.plain:
        return scores.attend(q, k, v, seen)
    copies = q.shape[1] // k.shape[1]
    if copies > 1:  # in fp32 the kernels that store no scores do not take grouped heads
        k, v = k.repeat_interleave(copies, dim=1), v.repeat_interleave(copies, dim=1)
    return scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=seen is None, scale=scores.scale
    )


def _take(x: Tensor, places: Tensor, rows: int, size: int) -> Tensor:
    """Return the places of x (L, heads, head_dim) as (rows, heads, size, head_dim)."""
    return x.index_select(0, places).view(rows, size, *x.shape[1:]).transpose(1, 2)


def rectangles(
    rows: Sequence[PackedRow], earlier: int, window: int | None, device: torch.device
) -> Rectangles:
    """Lay out `rows`, which together hold every query's place once.

    Each token sees those before it in `window`. The keys stand after `earlier` ones of another
    pass, and `PackedRow.prefix` counts from the first of those.
    """
    classes: dict[tuple[int, int], list[PackedRow]] = {}
    for row in rows:
        classes.setdefault((row.length.bit_length(), row.before.bit_length()), []).append(row)
    parts, places = [], []
    for members in classes.values():
        parts.append(_rectangle(members, earlier, window, device))
        places += [row.start + i for row in members for i in range(row.length)]
    order = torch.empty(len(places), dtype=torch.long)
    order[torch.tensor(places)] = torch.arange(len(places))
    return Rectangles(tuple(parts), order.to(device))


def _rectangle(
    rows: Sequence[PackedRow], earlier: int, window: int | None, device: torch.device
) -> Rectangle:
    length = max(row.length for row in rows)
    before = max(row.before for row in rows)
    keys = -(-(before + length) // 8) * 8 if before else length  # masks are read eight at a time
    numbers = torch.tensor([(row.start, row.length, row.prefix, row.before) for row in rows])
    starts_R1, lengths_R1, prefixes_R1, befores_R1 = numbers.T[..., None]
    query_1L, key_1S = torch.arange(length)[None], torch.arange(keys)[None] - before
    real_RL = query_1L < lengths_R1
    queries_RL = torch.where(real_RL, starts_R1 + query_1L, 0)
    own_RS = (key_1S >= 0) & (key_1S < lengths_R1)
    prefix_RS = (key_1S < 0) & (key_1S >= -befores_R1)
    keys_RS = torch.where(prefix_RS, prefixes_R1 + befores_R1 + key_1S, 0)
    keys_RS = torch.where(own_RS, earlier + starts_R1 + key_1S, keys_RS)
    seen_RLS = None
    if before or window is not None:
        seen_RLS = _seen(query_1L[..., None], key_1S[:, None], own_RS | prefix_RS, window)
    return Rectangle(
        queries_RL.flatten().to(device),
        keys_RS.flatten().to(device),
        (len(rows), length, keys),
        real_RL.flatten().nonzero()[:, 0].to(device),
        None if seen_RLS is None else seen_RLS[:, None].to(device),
    )


def _seen(query_1L1: Tensor, key_11S: Tensor, real_RS: Tensor, window: int | None) -> Tensor:
    """Return (R, L, S): True for a real key, not after its query, within the window.

    A padding query sees one key, so that it does not become NaN.
    """
    seen_RLS = real_RS[:, None] & (key_11S <= query_1L1)
    if window is not None:
        seen_RLS &= key_11S > query_1L1 - window
    blind_RL1 = ~seen_RLS.any(-1, keepdim=True)
    return seen_RLS | (blind_RL1 & (key_11S == key_11S.min()))
