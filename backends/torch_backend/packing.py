"""How ragged episodes are laid out for a forward pass: rows end to end, shared prefixes once.

Pure token arithmetic. Left out: padding, which `bucketed_attention` adds where it pays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from offapi.episodes import Episode, Floats, common_prefix_length


@dataclass(frozen=True)
class Tree:
    """Rows that share their first `shared` tokens.

    Those come once, then each episode's remaining tokens.
    """

    episodes: tuple[int, ...]  # indices into the batch
    shared: int  # tokens of the prefix
    lengths: tuple[int, ...]  # tokens of each row after the prefix


@dataclass(frozen=True)
class Pack:
    """One micro-batch: trees end to end.

    `rows` are the places in `tokens` whose hidden state predicts `targets`, in the order of
    `episodes` and of the tokens in each; `counts` says how many belong to each episode.
    """

    trees: tuple[Tree, ...]
    tokens: tuple[int, ...]  # (L,)
    positions: tuple[int, ...]  # (L,)
    rows: tuple[int, ...]  # (T,)
    targets: tuple[int, ...]  # (T,)
    counts: tuple[int, ...]  # (E,)

    @property
    def episodes(self) -> tuple[int, ...]:
        """Indices into the batch, in the order of `counts`."""
        return tuple(index for tree in self.trees for index in tree.episodes)

    def split(self, values_T: Floats) -> Mapping[int, Floats]:
        """Return the part of `values_T`, one number per target, that belongs to each episode."""
        parts, start = {}, 0
        for index, count in zip(self.episodes, self.counts, strict=True):
            parts[index] = values_T[start : start + count]
            start += count
        return parts


def packs(episodes: Sequence[Episode], budget: int) -> Iterator[Pack]:
    """Yield micro-batches of at most `budget` tokens each (a longer episode goes alone).

    The completions of one prompt make a tree; if no two episodes share a prompt, all make one tree.
    Each episode must have masked tokens, and must not mask its first one.
    """
    tokens = [episode.tokens for episode in episodes]
    trees: list[Tree] = []
    used = 0
    for members in _together(episodes):
        shared = common_prefix_length([tokens[i] for i in members]) if len(members) > 1 else 0
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


def equal_rows(episodes: Sequence[Episode], budget: int) -> Iterator[Pack]:
    """Yield micro-batches whose rows have one length and share nothing, of at most `budget` tokens.

    They need no padding, for models that cannot have rows end to end. A longer episode goes alone.
    """
    tokens = [episode.tokens for episode in episodes]
    lengths: dict[int, list[int]] = {}
    for index, row in enumerate(tokens):
        lengths.setdefault(len(row), []).append(index)
    for length, members in lengths.items():
        count = max(budget // length, 1)
        for start in range(0, len(members), count):
            trees = [Tree((index,), 0, (length,)) for index in members[start : start + count]]
            yield _pack(episodes, tokens, trees)


def _together(episodes: Sequence[Episode]) -> list[list[int]]:
    """Return the indices of episodes by prompt, or all together if no two share a prompt."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, episode in enumerate(episodes):
        groups.setdefault(episode.tokens[: episode.mask.index(True)], []).append(index)
    return list(groups.values()) if len(groups) < len(episodes) else [list(range(len(episodes)))]


def _pack(
    episodes: Sequence[Episode], tokens: Sequence[tuple[int, ...]], trees: Sequence[Tree]
) -> Pack:
    trees = [_alone(tree) if len(tree.episodes) == 1 else tree for tree in trees]
    laid: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    counts: list[int] = []
    for tree in trees:
        root, shared = len(laid), tree.shared
        laid += tokens[tree.episodes[0]][:shared]
        positions += range(shared)
        for index in tree.episodes:
            offset = len(laid) - shared
            learned = [t for t, masked in enumerate(episodes[index].mask) if masked]
            rows += [root + t - 1 if t <= shared else offset + t - 1 for t in learned]
            targets += [tokens[index][t] for t in learned]
            counts.append(len(learned))
            laid += tokens[index][shared:]
            positions += range(shared, len(tokens[index]))
    return Pack(
        tuple(trees), tuple(laid), tuple(positions), tuple(rows), tuple(targets), tuple(counts)
    )


def _alone(tree: Tree) -> Tree:
    return Tree(tree.episodes, 0, (tree.shared + tree.lengths[0],))
