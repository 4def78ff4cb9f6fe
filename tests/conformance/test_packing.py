"""A pack has every token once, and the row of each target is the token before it."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.episodes import Episode, Segment

packing = pytest.importorskip("offapi.backends.torch_backend.packing")

rows = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=6),
        st.lists(st.integers(0, 2), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
)


@given(rows, st.integers(1, 40))
def test_each_target_is_predicted_from_all_tokens_before_it(
    drawn: list[tuple[list[int], list[int]]], budget: int
) -> None:
    episodes = [
        Episode(str(i), (Segment(tuple(prompt), False), Segment(tuple(answer), True)))
        for i, (prompt, answer) in enumerate(drawn)
    ]
    seen: list[int] = []
    for pack in packing.packs(episodes, budget):
        assert (
            len(pack.tokens)
            == len(pack.positions)
            == sum(tree.shared + sum(tree.lengths) for tree in pack.trees)
        )
        place = 0
        for index, count, (root, shared, start) in zip(
            pack.episodes, pack.counts, starts(pack), strict=True
        ):
            tokens, mask = episodes[index].tokens, episodes[index].mask
            learned = [t for t in range(len(tokens)) if mask[t]]
            for t, row, target in zip(
                learned, pack.rows[place:][:count], pack.targets[place:][:count], strict=True
            ):
                assert target == tokens[t]
                before = (
                    pack.tokens[root : row + 1]
                    if row < root + shared
                    else (*pack.tokens[root : root + shared], *pack.tokens[start : row + 1])
                )
                assert before == tokens[:t]
                assert pack.positions[row] == t - 1
            place += count
        seen += pack.episodes
    assert sorted(seen) == list(range(len(episodes)))


def starts(pack: Any) -> Iterator[tuple[int, int, int]]:
    """Yield, for each row, where its tree begins, how many tokens are shared, and its own start."""
    root = 0
    for tree in pack.trees:
        at = root + tree.shared
        for length in tree.lengths:
            yield root, tree.shared, at
            at += length
        root = at


def test_each_prompt_of_a_group_is_laid_out_once() -> None:
    episodes = [
        Episode(f"{p}{i}", (Segment((7, p, p, p), False), Segment((9, i), True)))
        for i in range(3)
        for p in (1, 2)
    ]
    (pack,) = packing.packs(episodes, 100)
    assert [tree.episodes for tree in pack.trees] == [(0, 2, 4), (1, 3, 5)]
    assert len(pack.tokens) == 2 * (5 + 3 * 1)
    split = list(packing.packs(episodes, 9))
    assert [[tree.episodes for tree in pack.trees] for pack in split] == [[(0, 2, 4)], [(1, 3, 5)]]


def test_a_shared_prefix_is_laid_out_once() -> None:
    episodes = [
        Episode(str(i), (Segment((7, 7, 7, i), False), Segment((9,), True))) for i in range(3)
    ]
    (pack,) = packing.packs(episodes, 100)
    assert [tree.shared for tree in pack.trees] == [3]
    assert len(pack.tokens) == 3 + 3 * 2
