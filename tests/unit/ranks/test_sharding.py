"""Which rank computes what, and one result of the parts: every row once, weights even, means whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.episodes import Episode, Segment
from offapi.policy_loss import Experience, PolicyLoss, Update
from offapi.ranks import sharding

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=12)


def experience(tokens: int, advantage: float) -> Experience:
    segments = (Segment((1, 2), False), Segment(tuple(range(tokens)), True))
    return Experience(Episode("e", segments), advantage)


@given(ROWS, st.integers(1, 5))
def test_every_row_is_in_one_share_and_shares_are_even(
    rows: list[tuple[int, int]], size: int
) -> None:
    weights = [weight for _, weight in rows]
    shares = sharding.split([context for context, _ in rows], weights, size)
    assert sorted(place for share in shares for place in share) == list(range(len(rows)))
    loads = [sum(weights[place] for place in share) for share in shares]
    even = sum(weights) / size
    assert all(abs(load - even) <= max(weights, default=0) for load in loads)


@given(ROWS, st.integers(1, 5))
def test_a_prompts_rows_stay_together_but_where_a_share_ends(
    rows: list[tuple[int, int]], size: int
) -> None:
    contexts = [context for context, _ in rows]
    shares = sharding.split(contexts, [weight for _, weight in rows], size)
    pieces = sum(len({contexts[place] for place in share}) for share in shares)
    assert pieces - len(set(contexts)) <= size - 1


def test_what_is_not_computed_weighs_nothing() -> None:
    batch = [experience(8, advantage) for advantage in (0.0, 0.0, 1.0, -1.0)]
    shares = sharding.split_experiences(batch, PolicyLoss(), 2)
    assert [[place for place in share if place > 1] for share in shares] == [[2], [3]]


def test_prompts_are_dealt_in_turn() -> None:
    assert sharding.deal(5, 2) == [[0, 2, 4], [1, 3]]
    assert sharding.deal(1, 3) == [[0], [], []]


def update(loss: float, mean: float, most: float, *logprobs: float | None) -> Update:
    metrics = {"loss": loss, "tokens": 1.0, "ratio/mean": mean, "ratio/max": most}
    arrays = (None if value is None else np.array([value], np.float32) for value in logprobs)
    return Update(metrics, tuple(arrays))


@pytest.mark.parametrize(("rule", "mean"), [("dr_grpo", (1 * 1.0 + 3 * 2.0) / 4), ("gspo", 1.5)])
def test_an_update_is_that_of_the_whole_batch(rule: str, mean: float) -> None:
    batch = [experience(1, 1.0), experience(5, 0.0), experience(3, 1.0)]
    parts = [update(1.0, 1.0, 4.0, 0.1), update(2.0, 2.0, 3.0, None, 0.3), None]
    loss = PolicyLoss(rule)  # type: ignore[arg-type]
    joined = sharding.join_updates(batch, loss, [[0], [1, 2], []], parts)
    expected = {"loss": 3.0, "tokens": 2.0, "ratio/mean": mean, "ratio/max": 4.0}
    assert joined.metrics == pytest.approx(expected)
    assert [None if one is None else round(float(one[0]), 3) for one in joined.logprobs] == [
        0.1,
        None,
        0.3,
    ]


def test_a_share_without_ratios_has_no_part_in_the_means() -> None:
    batch = [experience(1, 1.0), experience(5, 0.0)]
    parts = [update(1.0, 0.5, 0.5, 0.1), update(0.0, 1.0, 1.0, None)]
    joined = sharding.join_updates(batch, PolicyLoss(), [[0], [1]], parts)
    assert joined.metrics["ratio/mean"] == joined.metrics["ratio/max"] == 0.5
    flat = sharding.join_updates([experience(5, 0.0)], PolicyLoss(), [[], [0]], [None, parts[1]])
    assert flat.metrics["ratio/mean"] == 1.0


def test_metrics_are_summed_over_the_ranks_that_had_a_share() -> None:
    parts = [{"loss": 1.0, "tokens": 2.0}, None, {"loss": 0.5, "tokens": 3.0}]
    assert sharding.join_metrics(parts) == {"loss": 1.5, "tokens": 5.0}
