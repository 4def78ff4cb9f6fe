"""How ragged episodes are laid out for a forward
pass: rows end to end, the prefixes they share once.

Pure token arithmetic that both backends share. Left out: padding, which a backend that
wants rectangles adds itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offapi.episodes import Episode, Floats


@dataclass(frozen=True)
class Tree:
    """Rows that share their first `shared` tokens:
    those once, then each episode's remaining tokens.
    """

    episodes: tuple[int, ...]  # indices into the batch
    shared: int
    lengths: tuple[int, ...]  # of each row after the prefix


@dataclass(frozen=True)
class Pack:
    """One micro-batch: trees end to end.

    `rows` are the places in `tokens` whose hidden state predicts `targets`, in the order
    of `episodes` and of the tokens in each; `counts` says how many belong to each.
    """

    trees: tuple[Tree, ...]
    tokens: tuple[int, ...]  # (T,)
    positions: tuple[int, ...]  # (T,)
    rows: tuple[int, ...]  # (N,)
    targets: tuple[int, ...]  # (N,)
    counts: tuple[int, ...]

    @property
    def episodes(self) -> tuple[int, ...]:
        """Indices into the batch, in the order of `counts`."""
        return tuple(index for tree in self.trees for index in tree.episodes)

    def split(self, values: Floats) -> Mapping[int, Floats]:
        """Per-target `values` (N,) handed back to the episodes they belong to."""
        parts, start = {}, 0
        for index, count in zip(self.episodes, self.counts, strict=True):
            parts[index] = values[start : start + count]
            start += count
        return parts


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest prefix that all rows share,
    leaving every row at least one token of its own.
    """
    shortest = min(rows, key=len)
    limit = len(shortest) - 1
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    return next((i for i in range(limit) if first[i] != last[i]), max(limit, 0))


def check_kept(episode: Episode) -> None:
    """ValueError unless the episode's kept sets, if any,
    are one for each masked token, the token among them.
    """
    kept = episode.kept
    if kept is None:
        return
    tokens = np.array(episode.tokens)[np.array(episode.mask)]
    fits = (
        len(kept.counts) == len(tokens)
        and kept.counts.sum() == len(kept.ids)
        and bool(kept.counts.all())
    )
    if fits:
        starts = np.cumsum(kept.counts) - kept.counts
        fits = bool(
            np.logical_or.reduceat(kept.ids == np.repeat(tokens, kept.counts), starts).all()
        )
    if not fits:
        raise ValueError(
            f"episode {episode.id!r}: its kept sets are not one for each token, the token among"
            " them"
        )


def packs(episodes: Sequence[Episode], budget: int) -> Iterator[Pack]:
    """Micro-batches of at most `budget` tokens each (a longer episode goes alone).

    The completions of one prompt make a tree; where every prompt is another, all episodes do.
    Raises ValueError for an episode without masked tokens or with its first token masked.
    """
    for episode in episodes:
        if not any(episode.mask):
            raise ValueError(
                f"episode {episode.id!r} has nothing to learn: no token is in its completion mask"
            )
        if episode.mask[0]:
            raise ValueError(
                f"episode {episode.id!r} masks its first token, which nothing predicts"
            )
        check_kept(episode)
    tokens = [episode.tokens for episode in episodes]
    trees: list[Tree] = []
    used = 0
    for members in _together(episodes):
        shared = common_prefix([tokens[i] for i in members]) if len(members) > 1 else 0
        grows = False  # whether the last tree is this group's
        for index in members:
            own = len(tokens[index]) - shared
            if trees and used + own + (0 if grows else shared) > budget:
                yield _pack(episodes, tokens, trees)
                trees, used, grows = [], 0, False
            used += own + (0 if grows else shared)
            first = trees.pop() if grows else Tree((), shared, ())
            trees.append(Tree((*first.episodes, index), shared, (*first.lengths, own)))
            grows = True
    if trees:
        yield _pack(episodes, tokens, trees)


def _together(episodes: Sequence[Episode]) -> list[list[int]]:
    """Indices of episodes with one prompt each, or of all where no two have the same."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, episode in enumerate(episodes):
        groups.setdefault(episode.tokens[: episode.mask.index(True)], []).append(index)
    return list(groups.values()) if len(groups) < len(episodes) else [list(range(len(episodes)))]


def _pack(
    episodes: Sequence[Episode], tokens: Sequence[tuple[int, ...]], trees: Sequence[Tree]
) -> Pack:
    trees = [_alone(tree) if len(tree.episodes) == 1 else tree for tree in trees]
    flat: list[int] = []
    places: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    counts: list[int] = []
    for tree in trees:
        root, shared = len(flat), tree.shared
        flat += tokens[tree.episodes[0]][:shared]
        places += range(shared)
        for index in tree.episodes:
            offset = len(flat) - shared
            learned = [t for t, on in enumerate(episodes[index].mask) if on]
            rows += [root + t - 1 if t <= shared else offset + t - 1 for t in learned]
            targets += [tokens[index][t] for t in learned]
            counts.append(len(learned))
            flat += tokens[index][shared:]
            places += range(shared, len(tokens[index]))
    return Pack(
        tuple(trees), tuple(flat), tuple(places), tuple(rows), tuple(targets), tuple(counts)
    )


def _alone(tree: Tree) -> Tree:
    return Tree(tree.episodes, 0, (tree.shared + tree.lengths[0],))
