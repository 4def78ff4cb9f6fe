"""How ragged episodes are laid out for a forward pass: rows end to end, their common prefix once.

Pure token arithmetic that both backends share. Left out: padding, which a backend that
wants rectangles adds itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from offapi.backend import Episode, Floats


@dataclass(frozen=True)
class Pack:
    """One micro-batch: `shared` prefix tokens, then each episode's remaining tokens.

    `rows` are the places in `tokens` whose hidden state predicts `targets`, in the order
    of `episodes` and of the tokens in each; `counts` says how many belong to each.
    """

    episodes: tuple[int, ...]  # indices into the batch
    tokens: tuple[int, ...]  # (T,)
    positions: tuple[int, ...]  # (T,)
    lengths: tuple[int, ...]  # of each row after the prefix
    shared: int
    rows: tuple[int, ...]  # (N,)
    targets: tuple[int, ...]  # (N,)
    counts: tuple[int, ...]

    def split(self, values: Floats) -> Mapping[int, Floats]:
        """Per-target `values` (N,) handed back to the episodes they belong to."""
        parts, start = {}, 0
        for index, count in zip(self.episodes, self.counts, strict=True):
            parts[index] = values[start : start + count]
            start += count
        return parts


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest prefix that all rows share, leaving every row at least one token of its own."""
    shortest = min(rows, key=len)
    limit = len(shortest) - 1
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    return next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))


def packs(episodes: Sequence[Episode], budget: int) -> Iterator[Pack]:
    """Micro-batches of at most `budget` tokens each (a longer episode goes alone), in order.

    Raises ValueError for an episode without masked tokens or with its first token masked.
    """
    for episode in episodes:
        if not any(episode.mask):
            raise ValueError(f"episode {episode.id!r} has nothing to learn: no token is in its completion mask")
        if episode.mask[0]:
            raise ValueError(f"episode {episode.id!r} masks its first token, which nothing predicts")
    tokens = [episode.tokens for episode in episodes]
    shared = common_prefix(tokens) if len(tokens) > 1 else 0
    chosen: list[int] = []
    used = shared
    for index, row in enumerate(tokens):
        own = len(row) - shared
        if chosen and used + own > budget:
            yield _pack(episodes, tokens, chosen, shared)
            chosen, used = [], shared
        chosen.append(index)
        used += own
    if chosen:
        yield _pack(episodes, tokens, chosen, shared)


def _pack(episodes: Sequence[Episode], tokens: Sequence[tuple[int, ...]], chosen: Sequence[int], shared: int) -> Pack:
    shared = shared if len(chosen) > 1 else 0
    flat = list(tokens[chosen[0]][:shared])
    places = list(range(shared))
    rows: list[int] = []
    targets: list[int] = []
    counts: list[int] = []
    for index in chosen:
        offset = len(flat) - shared
        learned = [t for t, on in enumerate(episodes[index].mask) if on]
        rows += [t - 1 if t <= shared else offset + t - 1 for t in learned]
        targets += [tokens[index][t] for t in learned]
        counts.append(len(learned))
        flat += tokens[index][shared:]
        places += range(shared, len(tokens[index]))
    lengths = tuple(len(tokens[index]) - shared for index in chosen)
    return Pack(tuple(chosen), tuple(flat), tuple(places), lengths, shared, tuple(rows), tuple(targets), tuple(counts))
