"""Episodes: the sequences of given and sampled tokens that a model is trained on and scores.

A single answer is an episode of two segments; a chat with tools has many. Every recipe trains on
episodes, and both backends refuse the same ones. Left out: where the tokens come from
(`offapi.chat.chat`, a backend's rollout).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Metrics = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class SamplingMask:
    """The tokens that truncation left to draw from at each of T positions (arXiv 2512.02556).

    `ids` are the token ids of all positions end to end, ascending at each; `counts` (T,) says how
    many belong to each position.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]

    @classmethod
    def of_positions(cls, ids_T: Sequence[NDArray[np.int32]]) -> SamplingMask:
        """Join the ids left at each position, one array per position."""
        counts_T = np.array([len(ids) for ids in ids_T], np.int32)
        return cls(np.concatenate(ids_T), counts_T)


@dataclass(frozen=True)
class Segment:
    """A run of tokens, either sampled by the policy (learned) or given (context)."""

    tokens: tuple[int, ...]
    sampled: bool
    logprobs: tuple[float, ...] | None = None  # behaviour logprobs, if a rollout sampled it
    # the tokens that truncated sampling left: logprobs are taken over these
    sampling_mask: SamplingMask | None = None


@dataclass(frozen=True)
class Episode:
    """Segments in order.

    Tokens are appended, never re-encoded, so training sees what was sampled.
    """

    id: str
    segments: tuple[Segment, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """All token ids, shape (T,)."""
        return tuple(token for segment in self.segments for token in segment.tokens)

    @property
    def mask(self) -> tuple[bool, ...]:
        """The completion mask, shape (T,): True where the token was sampled and is learned."""
        return tuple(segment.sampled for segment in self.segments for _ in segment.tokens)

    @property
    def behaviour(self) -> Floats | None:
        """The behaviour logprobs of the masked tokens, shape (mask.sum(),).

        None if a sampled segment has none.
        """
        sampled = [segment.logprobs for segment in self.segments if segment.sampled]
        known = [logprobs for logprobs in sampled if logprobs is not None]
        if len(known) < len(sampled):
            return None
        return np.array([logprob for logprobs in known for logprob in logprobs], np.float32)

    @property
    def sampling_mask(self) -> SamplingMask | None:
        """The sampling mask of the masked tokens; None unless every sampled segment has one."""
        sampled = [segment.sampling_mask for segment in self.segments if segment.sampled]
        known = [mask for mask in sampled if mask is not None]
        if not known or len(known) < len(sampled):
            return None
        counts_T = np.concatenate([mask.counts for mask in known])
        return SamplingMask(np.concatenate([mask.ids for mask in known]), counts_T)


class Totals(NamedTuple):
    """What a loss is divided by: episodes and masked tokens of a whole batch, over all ranks."""

    sequences: int
    tokens: int

    @classmethod
    def of(cls, batch: Sequence[Episode]) -> Self:
        """Count a batch."""
        return cls(len(batch), sum(sum(episode.mask) for episode in batch))


def common_prefix_length(rows: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest prefix that all rows share.

    Every row keeps at least one token of its own.
    """
    limit = min(map(len, rows)) - 1
    # In lexicographic order all other rows lie between these two.
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    return next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))


def check_tokens(tokens: Sequence[int], vocabulary: int, name: str) -> None:
    """Raise ValueError for a token id outside the model's `vocabulary` tokens."""
    for token in (min(tokens, default=0), max(tokens, default=0)):
        if not 0 <= token < vocabulary:
            raise ValueError(f"{name} has token {token}; tokens must be 0 to {vocabulary - 1}")


def check_scorable(episodes: Sequence[Episode], vocabulary: int, temperature: float = 1.0) -> None:
    """Raise ValueError, naming the episode, for one that cannot be scored.

    That is, if the first token is masked (nothing predicts it), a sampling mask does not fit its
    tokens, or the model does not know a token; also if the temperature is not above 0.
    """
    if not 0 < temperature < inf:
        raise ValueError(f"logprobs need a finite temperature above 0, got {temperature}")
    for episode in episodes:
        check_tokens(episode.tokens, vocabulary, f"episode {episode.id!r}")
        if episode.mask[:1] == (True,):
            raise ValueError(
                f"episode {episode.id!r} masks its first token, which no earlier token predicts"
            )
        if not _sampling_mask_fits(episode, vocabulary):
            raise ValueError(
                f"the sampling mask of episode {episode.id!r} must have one set of tokens for each"
                " masked token, and each set must contain its token"
            )


def check_learnable(batch: Sequence[Episode], vocabulary: int) -> None:
    """Raise ValueError for an empty batch, or an episode that cannot be learned from.

    That is, one without masked tokens, or one that `check_scorable` refuses.
    """
    if not batch:
        raise ValueError("a training batch must have at least one episode, got none")
    for episode in batch:
        if not any(episode.mask):
            raise ValueError(
                f"episode {episode.id!r} has no masked tokens, so there is nothing to learn"
            )
    check_scorable(batch, vocabulary)


def _sampling_mask_fits(episode: Episode, vocabulary: int) -> bool:
    """Whether the episode has no sampling mask, or one whose sets hold each masked token."""
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
