"""Kept sets on the device: which tokens truncated sampling left to draw from, row by row of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offapi.backend import Kept


@dataclass(frozen=True)
class KeptRows:
    """`ids` (K,) of the tokens kept in row `rows` (K,), ascending; `limited` (N,) says which rows have a set."""

    ids: Tensor
    rows: Tensor
    limited: Tensor

    def mask(self, logits: Tensor, start: int) -> Tensor:
        """`logits` (n, V) of the rows from `start` on, -inf outside their sets."""
        first, last = torch.searchsorted(self.rows, torch.tensor([start, start + len(logits)], device=logits.device))
        gone = self.limited[start : start + len(logits), None].expand(logits.shape).clone()
        gone[self.rows[first:last] - start, self.ids[first:last]] = False
        return logits.masked_fill(gone, float("-inf"))


def place_kept(kept: Sequence[Kept | None], counts: Sequence[int], device: torch.device) -> KeptRows | None:
    """The sets of episodes with `counts` rows each, end to end; None where no episode has any.

    Raises ValueError for sets that do not fit their episode.
    """
    if all(one is None for one in kept):
        return None
    ids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for one, count in zip(kept, counts, strict=True):
        if one is not None and len(one.counts) != count:
            raise ValueError("an episode's kept sets do not fit its completion mask")
        ids.append(np.zeros(0, np.int32) if one is None else one.ids)
        sizes.append(np.zeros(count, np.int32) if one is None else one.counts)
    size = torch.from_numpy(np.concatenate(sizes)).to(device).long()
    rows = torch.repeat_interleave(torch.arange(len(size), device=device), size)
    return KeptRows(torch.from_numpy(np.concatenate(ids)).to(device).long(), rows, size > 0)
