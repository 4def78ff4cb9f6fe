"""Episodes: what a model is trained on and scores, runs of tokens that are given or sampled.

A single-shot answer is an episode of two segments, a chat with tools one of many. Everything
trains on these. Left out: where the tokens come from (`offapi.chat.chat`, a backend's rollout).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Metrics = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Kept:
    """The tokens that truncation left to draw from, at each
    of T positions: the sampling mask of arXiv 2512.02556.

    `ids` are the token ids of all positions one after the
    other, ascending in each; `counts` (T,) how many each has.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]


@dataclass(frozen=True)
class Segment:
    """A run of tokens, either sampled by the policy (learned) or given (context)."""

    tokens: tuple[int, ...]
    sampled: bool
    logprobs: tuple[float, ...] | None = None  # behaviour logprobs, sampled segments of a rollout
    kept: Kept | None = (
        None  # what truncated sampling left to draw from: logprobs are taken over these tokens
    )


@dataclass(frozen=True)
class Episode:
    """Segments in order. Tokens are appended, never
    re-encoded, so training sees what was sampled.
    """

    id: str
    segments: tuple[Segment, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """All token ids, shape (T,)."""
        return tuple(token for segment in self.segments for token in segment.tokens)

    @property
    def mask(self) -> tuple[bool, ...]:
        """Completion mask, shape (T,): True where the token was sampled, that is, is learned."""
        return tuple(segment.sampled for segment in self.segments for _ in segment.tokens)

    @property
    def behaviour(self) -> Floats | None:
        """Behaviour logprobs of the masked tokens, shape
        (mask.sum(),); None where a sampled segment has none.
        """
        sampled = [segment.logprobs for segment in self.segments if segment.sampled]
        known = [logprobs for logprobs in sampled if logprobs is not None]
        return (
            np.array([x for each in known for x in each], np.float32)
            if len(known) == len(sampled)
            else None
        )

    @property
    def kept(self) -> Kept | None:
        """The kept sets of the masked tokens; None unless every sampled segment has them."""
        sampled = [segment.kept for segment in self.segments if segment.sampled]
        known = [kept for kept in sampled if kept is not None]
        if not known or len(known) < len(sampled):
            return None
        return Kept(
            np.concatenate([k.ids for k in known]), np.concatenate([k.counts for k in known])
        )
