"""Rewards as a rectangle, and the metrics of ratios over micro-batches."""

from __future__ import annotations

import numpy as np
import pytest

from offapi.policy_loss import PolicyLoss, pad_rewards, ratio_metrics


def test_groups_of_other_sizes_are_padded_with_zeros() -> None:
    rewards_PG, real_PG = pad_rewards([[1.0, 2.0, 3.0], [4.0]])
    assert rewards_PG.tolist() == [[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]
    assert real_PG.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("rewards", [[], [[]], [[1.0], []]])
def test_a_group_without_rewards_is_refused(rewards: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one group, and each must have"):
        pad_rewards(rewards)


def test_a_reward_that_is_not_finite_is_named() -> None:
    with pytest.raises(ValueError, match="got nan for completion 1 of group 2"):
        pad_rewards([[1.0], [1.0], [0.0, float("nan")]])


def test_ratios_are_counted_over_all_micro_batches() -> None:
    """Three ratios of mean 1.0, one of them clipped low; then five of mean 1.4, two clipped high."""
    parts = [np.array([3.0, 1.5, 1.0, 0.0, 3.0]), np.array([7.0, 1.25, 0.0, 2.0, 5.0])]
    assert ratio_metrics(parts) == {
        "ratio/mean": 1.25,
        "ratio/max": 1.5,
        "clip_ratio/low_mean": 0.125,
        "clip_ratio/high_mean": 0.25,
    }


def test_without_any_ratio_nothing_has_moved_and_nothing_is_clipped() -> None:
    nothing = ratio_metrics([])
    assert (nothing["ratio/mean"], nothing["ratio/max"]) == (1.0, 1.0)
    assert (nothing["clip_ratio/low_mean"], nothing["clip_ratio/high_mean"]) == (0.0, 0.0)


def test_epsilon_bounds_both_sides_only_where_the_rule_has_equal_bounds() -> None:
    def bounds(**knobs: float) -> tuple[float, float]:
        loss = PolicyLoss(**knobs)  # type: ignore[arg-type]
        return loss.low, loss.high

    assert bounds() == (0.2, 0.2)
    assert bounds(epsilon=0.1) == (0.1, 0.1)
    assert bounds(epsilon=0.1, epsilon_high=0.3) == (0.1, 0.3)
    assert (PolicyLoss("dapo", epsilon=0.1).low, PolicyLoss("dapo", epsilon=0.1).high) == (
        0.1,
        0.28,
    )
