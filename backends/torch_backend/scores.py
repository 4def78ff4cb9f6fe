"""What a layer makes of its scores: their scale, a window, a cap on them, a sink next to the keys.

A cap is cap * tanh(score / cap) (arXiv 2408.00118). A sink is one more score for each head, which
takes its share of the softmax and adds no value (arXiv 2309.17453, with learned scores). No fused
kernel of torch has either, so the scores are stored: memory grows with queries times keys. Left
out: sinks that have values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """What a layer makes of the products of its queries and keys."""

    scale: float
    window: int | None = None  # keys that a query sees, its own included; None: all before it
    cap: float | None = None
    sinks_H: Tensor | None = None  # one score for each query head

    @property
    def plain(self) -> bool:
        """Whether torch's fused kernels compute it."""
        return self.cap is None and self.sinks_H is None

    def capped(self, scores: Tensor) -> Tensor:
        """Return `scores` after the cap."""
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap

    def softmax(self, scores: Tensor, sinks: Tensor | None) -> Tensor:
        """Return the softmax over the last axis, in float32, with `sinks` (..., 1) next to them."""
        if sinks is None:
            return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
        sinks = sinks.to(scores.dtype).expand(*scores.shape[:-1], 1)
        both = torch.cat((scores, sinks), dim=-1).softmax(-1, dtype=torch.float32)
        return both[..., :-1].to(scores.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
        """Attend (R, heads, L, head_dim) to (R, kv_heads, S, head_dim) where `seen` is True.

        Without `seen`, which has a shape that broadcasts to (R, heads, L, S), it is causal.
        """
        if seen is None:
            seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        copies = q.shape[1] // k.shape[1]
        if copies > 1:
            k, v = k.repeat_interleave(copies, dim=1), v.repeat_interleave(copies, dim=1)
        scores = self.capped(q @ k.transpose(2, 3) * self.scale)
        scores = scores.masked_fill(~seen, float("-inf"))
        sinks = None if self.sinks_H is None else self.sinks_H.view(1, -1, 1, 1)
        return self.softmax(scores, sinks) @ v

    def masked(self, unseen: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Return the scores of a batched product q k, with `unseen` (0 or -inf) added.

        Without a cap it is one product: on a GPU scale and mask would each be a separate kernel.
        """
        if self.cap is None:
            return torch.baddbmm(unseen, q, k, alpha=self.scale)
        return self.capped(torch.bmm(q, k) * self.scale) + unseen

    def grouped_sinks(self, rows: int, kv_heads: int) -> Tensor | None:
        """Return the sinks as (rows * kv_heads, heads of a key head, 1)."""
        if self.sinks_H is None:
            return None
        return self.sinks_H.view(kv_heads, -1, 1).repeat(rows, 1, 1)
