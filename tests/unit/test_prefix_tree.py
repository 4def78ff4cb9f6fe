"""The tree of prefixes: what was put in comes out, within its budget, and pins hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from offapi.prefix_tree import PrefixKey, PrefixTree

POLICY = PrefixKey(None, 0)


def tree(budget: int) -> PrefixTree[list[int]]:
    """Keep a list of numbers, one for each token, each of one byte."""
    return PrefixTree(
        budget,
        cut=lambda payload, start, stop: payload[start:stop],
        join=lambda parts: [number for part in parts for number in part],
        size=len,
    )


def numbers(tokens: Sequence[int], salt: int = 0) -> list[int]:
    """Return a number for each token that depends on all before it."""
    return [hash((salt, *tokens[: i + 1])) for i in range(len(tokens))]


def reading(tokens: Sequence[int], salt: int = 0) -> Callable[[int, int], list[int]]:
    return lambda start, stop: numbers(tokens, salt)[start:stop]


def test_any_prefix_comes_out_as_it_was_put_in() -> None:
    draw = np.random.default_rng(3)
    kept, held = tree(10**9), set()
    for _ in range(300):
        row = tuple(map(int, draw.integers(0, 3, draw.integers(1, 12))))
        known = max((i for i in range(len(row) + 1) if row[:i] in held), default=0)
        expected = numbers(row)[:known] or None
        assert kept.longest(POLICY, row) == (known, expected)
        kept.insert(POLICY, row, reading(row))
        held |= {row[:i] for i in range(len(row) + 1)}
        assert kept.longest(POLICY, row) == (len(row), numbers(row))
    assert kept.used_bytes == len(held) - 1, "what prefixes share is kept once"


def test_only_what_is_not_kept_is_read() -> None:
    kept, read = tree(100), []

    def note(start: int, stop: int) -> list[int]:
        read.append((start, stop))
        return numbers(range(20))[start:stop]

    kept.insert(POLICY, range(5), note)
    kept.insert(POLICY, range(12), note)
    kept.insert(POLICY, range(8), note)
    assert read == [(0, 5), (5, 12)]


@pytest.mark.parametrize("other", [PrefixKey("invoices", 0), PrefixKey(None, 1)])
def test_another_adapter_or_other_weights_have_nothing_of_it(other: PrefixKey) -> None:
    kept = tree(100)
    kept.insert(POLICY, range(5), reading(range(5)))
    assert kept.longest(other, range(5)) == (0, None)
    kept.insert(other, range(5), reading(range(5), salt=1))
    assert kept.longest(other, range(5))[1] == numbers(range(5), salt=1)
    assert kept.longest(POLICY, range(5))[1] == numbers(range(5))


def test_the_least_recently_used_go_first_and_the_budget_holds() -> None:
    kept = tree(10)
    for first in (1, 2, 3):
        row = (first, 0, 0)
        kept.insert(POLICY, row, reading(row))
    kept.longest(POLICY, (1, 0, 0))
    kept.insert(POLICY, (4, 0, 0), reading((4, 0, 0)))
    assert kept.used_bytes == 9
    found = [kept.longest(POLICY, (first, 0, 0))[0] for first in (1, 2, 3, 4)]
    assert found == [3, 0, 3, 3]


def test_the_part_above_outlives_its_leaves() -> None:
    kept = tree(8)
    for last in range(5):
        row = (*range(5), 90 + last, 90 + last)
        kept.insert(POLICY, row, reading(row))
        assert kept.used_bytes <= 8
        assert kept.longest(POLICY, row) == (7, numbers(row))


def test_pinned_rows_stay_until_they_are_unpinned_each_time() -> None:
    kept = tree(0)
    kept.insert(POLICY, range(6), reading(range(6)))
    assert kept.used_bytes == 0
    kept.insert(POLICY, range(6), reading(range(6)), pin=True)
    kept.insert(POLICY, range(6), reading(range(6)), pin=True)
    other = (0, 1, 50)
    kept.insert(POLICY, other, reading(other), pin=True)
    kept.unpin(POLICY, range(6))
    assert kept.longest(POLICY, range(6)) == (6, numbers(range(6)))
    kept.unpin(POLICY, range(6))
    assert kept.longest(POLICY, range(6))[0] == 2
    kept.unpin(POLICY, other)
    assert kept.used_bytes == 0


def test_cleared_it_is_empty() -> None:
    kept = tree(100)
    kept.insert(POLICY, range(6), reading(range(6)), pin=True)
    kept.clear()
    assert (kept.used_bytes, kept.longest(POLICY, range(6))) == (0, (0, None))


@pytest.mark.parametrize("budget", [3, 6])
def test_weights_that_nothing_is_kept_of_are_forgotten(budget: int) -> None:
    """Training makes a version of the weights with every step."""
    kept = tree(budget)
    for version in range(50):
        key = PrefixKey(None, version)
        for row in ((1, 2, 3), tuple(range(9))):
            kept.insert(key, row, reading(row))
        kept.insert(key, (4, 5), reading((4, 5)), pin=True)
        kept.unpin(key, (4, 5))
    assert len(kept._roots) <= 2
    assert kept.longest(PrefixKey(None, 49), (4, 5))[0] == 2
