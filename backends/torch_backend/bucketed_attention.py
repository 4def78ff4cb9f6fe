"""Packed rows attended side by side, as rectangles of rows
of like length: few large kernels instead of many small.

A GPU waits for the launches of row after row; here one call takes all rows whose length and
whose prefix have the same power of two above them, so that padding at most doubles either.
Left out: padding of the other layers' work, which stays packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class PackedRow:
    """`length` tokens from place `start` of the pack on,
    which also see the `before` keys from `prefix` on.
    """

    start: int
    length: int
    prefix: int = 0
    before: int = 0


@dataclass(frozen=True)
class Rectangle:
    """Rows attended in one call: R rows of L queries and S keys, the keys' prefix first."""

    queries: Tensor  # (R * L,) places; padding repeats place 0
    keys: Tensor  # (R * S,)
    shape: tuple[int, int, int]  # R, L, S
    real: Tensor  # which of R * L are no padding
    seen: Tensor | None  # (R, 1, L, S) bool; None: causal, nothing before


@dataclass(frozen=True)
class Rectangles:
    """All rows of a pack."""

    parts: tuple[Rectangle, ...]
    order: Tensor  # (T,) where each place of the pack is in the parts' real queries end to end

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q (1, H, T, D); k and v (1, KV, T', D), of as many places as the rows name.

        Gives (1, H, T, D).
        """
        copies = q.shape[1] // k.shape[1]
        flat_q, flat_k, flat_v = (x[0].transpose(0, 1) for x in (q, k, v))  # (T, heads, D)
        done = []
        for part in self.parts:
            rows, length, keys = part.shape
            own_q = _taken(flat_q, part.queries, rows, length)
            own_k, own_v = (_taken(x, part.keys, rows, keys) for x in (flat_k, flat_v))
            if copies > 1:  # written out: the kernels that hold no scores take no groups in fp32
                own_k, own_v = (x.repeat_interleave(copies, dim=1) for x in (own_k, own_v))
            mixed = scaled_dot_product_attention(
                own_q, own_k, own_v, attn_mask=part.seen, is_causal=part.seen is None, scale=scale
            )
            done.append(mixed.transpose(1, 2).flatten(0, 1).index_select(0, part.real))
        whole = done[0] if len(done) == 1 else torch.cat(done)
        return whole.index_select(0, self.order).transpose(0, 1)[None]


def _taken(x: Tensor, places: Tensor, rows: int, size: int) -> Tensor:
    """(rows, heads, size, D) of x (T, heads, D)."""
    return x.index_select(0, places).view(rows, size, *x.shape[1:]).transpose(1, 2)


def rectangles(
    rows: Sequence[PackedRow], earlier: int, window: int | None, device: torch.device
) -> Rectangles:
    """Lay out `rows`, which together hold every query's
    place once; each token sees those before it in `window`.

    The keys stand after `earlier` ones of another pass,
    and `Row.prefix` counts from the first of those.
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
    length, before = max(row.length for row in rows), max(row.before for row in rows)
    keys = -(-(before + length) // 8) * 8 if before else length  # masks are read eight at a time
    numbers = torch.tensor([(row.start, row.length, row.prefix, row.before) for row in rows])
    starts, lengths, prefixes, befores = numbers.T[..., None]  # (R, 1) each
    at, key = torch.arange(length)[None], torch.arange(keys)[None] - before
    real = at < lengths
    queries = torch.where(real, starts + at, 0)
    own, early = (key >= 0) & (key < lengths), (key < 0) & (key >= -befores)
    places = torch.where(
        own, earlier + starts + key, torch.where(early, prefixes + befores + key, 0)
    )
    seen = None
    if before or window is not None:
        seen = _seen(at[..., None], key[:, None], own | early, window)
    return Rectangle(
        queries.flatten().to(device),
        places.flatten().to(device),
        (len(rows), length, keys),
        real.flatten().nonzero()[:, 0].to(device),
        None if seen is None else seen[:, None].to(device),
    )


def _seen(at: Tensor, key: Tensor, there: Tensor, window: int | None) -> Tensor:
    """(R, L, S): a key that is there, not after its query, within the window.

    Padding sees one key, to be no NaN.
    """
    seen = there[:, None] & (key <= at)
    if window is not None:
        seen &= key > at - window
    alone = ~seen.any(-1, keepdim=True)
    return seen | (alone & (key == key.min()))
