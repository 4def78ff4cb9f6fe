"""What rows' matchers allow next, as a mask on the device.

Left out: what a matcher is made of, which is `offapi.constrain`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offapi.engine import Matcher, Words, allowed_words


@dataclass(frozen=True, eq=False)
class Allowed:
    """What each of R rows may draw next, one bit a token, and the rank that greedy takes."""

    words: Words  # (R, ceil(V / 32))
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, matchers: Sequence[Matcher | None], vocabulary: int) -> Allowed | None:
        """Ask each matcher; None if there is none. Rows without one may draw anything."""
        if all(matcher is None for matcher in matchers):
            return None
        words = allowed_words(matchers, vocabulary)
        return cls(words, tuple(0 if matcher is None else matcher.rank for matcher in matchers))

    def forbid(self, logits_RV: Tensor) -> Tensor:
        """Set the logits of what is not allowed to -inf."""
        octets = self.words.astype("<i4", copy=False).view(np.uint8)
        bits = np.unpackbits(octets, axis=1, count=logits_RV.shape[1], bitorder="little")
        forbidden_RV = torch.from_numpy(bits == 0).to(logits_RV.device)
        return logits_RV.masked_fill(forbidden_RV, float("-inf"))

    def take_ranks(self, logits_RV: Tensor, best_R: Tensor) -> Tensor:
        """Return the token of each row's rank among its allowed logits; rank 0 is `best_R`.

        Equal logits are ranked by id.
        """
        if not any(self.ranks):
            return best_R
        tokens_R = best_R.clone()
        for row, rank in enumerate(self.ranks):
            if rank:
                order_V = logits_RV[row].argsort(descending=True, stable=True)
                last = int((logits_RV[row] > float("-inf")).sum()) - 1
                tokens_R[row] = order_V[min(rank, last)]
        return tokens_R
