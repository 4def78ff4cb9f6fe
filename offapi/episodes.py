"""Episodes: what a model is trained on and scores, runs of tokens that are given or sampled.

A single-shot answer is an episode of two segments, a chat with tools one of many. Everything
trains on these, and both backends refuse the same ones. Left out: where the tokens come from
(`offapi.chat.chat`, a backend's rollout).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Metrics = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class SamplingMask:
    """The tokens that truncation left to draw from, at each
    of T positions: the sampling mask of arXiv 2512.02556.

    `ids` are the token ids of all positions one after the
    other, ascending in each; `counts` (T,) how many each has.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]

    @classmethod
    def of_positions(cls, ids_T: Sequence[NDArray[np.int32]]) -> SamplingMask:
        """Join the ids left at each position, one array a position."""
        counts_T = np.array([len(ids) for ids in ids_T], np.int32)
        return cls(np.concatenate(ids_T), counts_T)


@dataclass(frozen=True)
class Segment:
    """A run of tokens, either sampled by the policy (learned) or given (context)."""

    tokens: tuple[int, ...]
    sampled: bool
    logprobs: tuple[float, ...] | None = None  # behaviour logprobs, sampled segments of a rollout
    # what truncated sampling left to draw from: logprobs are taken over these tokens
    sampling_mask: SamplingMask | None = None


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
    def sampling_mask(self) -> SamplingMask | None:
        """The sampling mask of the masked tokens; None unless every sampled segment has one."""
        sampled = [segment.sampling_mask for segment in self.segments if segment.sampled]
        known = [each for each in sampled if each is not None]
        if not known or len(known) < len(sampled):
            return None
        counts_T = np.concatenate([each.counts for each in known])
        return SamplingMask(np.concatenate([each.ids for each in known]), counts_T)


def common_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest prefix that all rows share,
    leaving every row at least one token of its own.
    """
    limit = min(map(len, rows)) - 1
    first, last = min(map(tuple, rows)), max(map(tuple, rows))  # all others lie between
    return next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))


def check_tokens(tokens: Sequence[int], vocabulary: int, name: str) -> None:
    """ValueError for a token id that is not below `vocabulary`, the model's number of tokens."""
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < vocabulary:
            raise ValueError(f"{name} has token {token}, the model knows 0 to {vocabulary - 1}")


def check_scorable(episodes: Sequence[Episode], vocabulary: int, temperature: float = 1.0) -> None:
    """ValueError, naming the episode, where the first token is masked (nothing predicts it), a
    sampling mask does not fit its tokens, or the model does not know one; or for a temperature
    that is not above 0.
    """
    if not 0 < temperature < inf:
        raise ValueError(f"logprobs need a temperature above 0, got {temperature}")
    for episode in episodes:
        check_tokens(episode.tokens, vocabulary, f"episode {episode.id!r}")
        if episode.mask[:1] == (True,):
            raise ValueError(f"episode {episode.id!r} masks its first token, which has no context")
        if not _sampling_mask_fits(episode, vocabulary):
            raise ValueError(
                f"the sampling mask of episode {episode.id!r} must hold one set for each masked"
                " token, the token among them"
            )


def check_learnable(batch: Sequence[Episode], vocabulary: int) -> None:
    """ValueError for an empty batch, an episode without masked
    tokens, or one that cannot be scored.
    """
    if not batch:
        raise ValueError("a batch to train on needs at least one episode")
    for episode in batch:
        if not any(episode.mask):
            raise ValueError(f"episode {episode.id!r} has no masked tokens, so nothing to learn")
    check_scorable(batch, vocabulary)


def _sampling_mask_fits(episode: Episode, vocabulary: int) -> bool:
    """Whether it is absent, or has one set for each masked token, the token among them."""
    mask = episode.sampling_mask
    if mask is None:
        return True
    tokens_T = np.array(episode.tokens, np.int32)[np.array(episode.mask, bool)]
    sizes_fit = len(mask.counts) == len(tokens_T) and mask.counts.sum() == len(mask.ids)
    known = (mask.ids >= 0) & (mask.ids < vocabulary)
    if not sizes_fit or not mask.counts.all() or not known.all():
        return False
    starts_T = np.cumsum(mask.counts) - mask.counts
    drawn = mask.ids == np.repeat(tokens_T, mask.counts)
    return bool(np.logical_or.reduceat(drawn, starts_T).all())
