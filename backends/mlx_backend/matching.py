"""What rows' matchers allow next, as a mask on the device.

Left out: what a matcher is made of, which is `offapi.constrain`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from offapi.engine import Matcher, Words, allowed_words

WORD = 32  # tokens of one word


@dataclass(frozen=True, eq=False)
class Allowed:
    """The tokens that each of R rows may say next, one bit each, and the rank that greedy takes."""

    words: Words  # (R, ceil(V / 32))
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, matchers: Sequence[Matcher | None], vocabulary: int) -> Allowed | None:
        """Ask each matcher; None if there is none. Rows without one may say anything."""
        if not any(matchers):
            return None
        words = allowed_words(matchers, vocabulary)
        return cls(words, tuple(matcher.rank if matcher else 0 for matcher in matchers))

    def of_rows(self, rows: Sequence[int]) -> Allowed | None:
        """Return what is allowed to some of the rows."""
        return Allowed(self.words[rows], tuple(self.ranks[row] for row in rows))

    def forbid(self, logits_RV: mx.array) -> mx.array:
        """Set the logits of what is not allowed to -inf."""
        words_RW1 = mx.array(self.words)[:, :, None]
        bits = (words_RW1 >> mx.arange(WORD, dtype=mx.int32)) & 1
        allowed_RV = bits.reshape(len(self.words), -1)[:, : logits_RV.shape[-1]]
        return mx.where(allowed_RV == 1, logits_RV, -mx.inf)

    def take_ranks(self, logits_RV: mx.array, best_R: mx.array) -> mx.array:
        """Return the token of each row's rank among its allowed logits; rank 0 is `best_R`."""
        ranked = [row for row, rank in enumerate(self.ranks) if rank]
        if not ranked:
            return best_R
        rows_K = mx.array(ranked)
        logits_KV = logits_RV[rows_K]
        order_KV = mx.argsort(-logits_KV, axis=-1)
        last_K = (logits_KV > -mx.inf).sum(axis=-1) - 1
        ranks_K = mx.minimum(mx.array([self.ranks[row] for row in ranked]), last_K)
        taken_K1 = mx.take_along_axis(order_KV, ranks_K[:, None], axis=-1).astype(best_R.dtype)
        return mx.put_along_axis(best_R, rows_K, taken_K1[:, 0], axis=0)
