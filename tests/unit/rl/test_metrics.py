"""What a GRPO step logs, value by value, calculated by hand."""

from __future__ import annotations

import numpy as np
import pytest

from offapi.backend import Completion, Finish
from offapi.data.documents import Document
from offapi.episodes import Episode, Segment
from offapi.policy_loss import Experience, Update
from offapi.rl import metrics
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup, Sampled


def rollout(
    reward: float | None, logprobs: list[float], finish: Finish, **scores: float
) -> Rollout:
    completion = Completion(tuple(range(len(logprobs))), tuple(logprobs), finish)
    audit = {name: score for name, score in scores.items() if name != "json"}
    parts = {name: score for name, score in scores.items() if name != "gold"}
    return Rollout(completion, "", Judged(reward, parts, audit), reward)


SAMPLED = Sampled(
    (
        RolloutGroup(
            Prompt(Document("a", "a"), (1,)),
            (
                rollout(1.0, [-0.2, -0.4], "stop", json=1.0, gold=0.5, brief=1.0),
                rollout(0.0, [-0.6] * 4, "length", json=0.0, gold=0.0),
                rollout(None, [-1.0], "stop", json=1.0, gold=0.25),
            ),
        ),
        RolloutGroup(Prompt(Document("b", "b"), (1,)), (rollout(0.5, [-1.0], "stop", json=1.0),)),
    ),
    resampled=3,
)


def test_rollouts() -> None:
    assert metrics.of_rollouts(SAMPLED) == pytest.approx(
        {
            "reward": 0.5,
            "reward_std": (np.sqrt(0.5) + 0.0) / 2,  # Bessel's; 0 of a group of one
            "frac_reward_zero_std": 0.5,
            "rewards/json/mean": 0.75,  # and none of what audits
            "audit/brief/mean": 1.0,
            "audit/gold/mean": 0.25,  # of the three that have it
            "rewards/none": 1.0,
            "resampled_prompts": 3.0,
            "entropy": (0.2 + 0.4 + 4 * 0.6 + 1.0 + 1.0) / 8,
            "completions/mean_length": 2.0,
            "completions/min_length": 1.0,
            "completions/max_length": 4.0,
            "completions/clipped_ratio": 0.25,
        }
    )


def test_rollouts_without_rewards_have_finite_figures() -> None:
    group = RolloutGroup(Prompt(Document("a", "a"), (1,)), (rollout(None, [], "stop", json=0.0),))
    found = metrics.of_rollouts(Sampled((group,)))
    assert (
        found["reward"],
        found["entropy"],
        found["reward_std"],
        found["frac_reward_zero_std"],
    ) == (0, 0, 0, 1)


def experience(behaviour: list[float] | None, reference: list[float] | None = None) -> Experience:
    logprobs = tuple(behaviour) if behaviour is not None else None
    count = len(behaviour or [0.0])
    episode = Episode("a", (Segment((1,), False), Segment((2,) * count, True, logprobs)))
    return Experience(
        episode, 1.0, reference=None if reference is None else np.array(reference, np.float32)
    )


def test_kl_is_k3_over_all_tokens() -> None:
    batch = [
        experience([-1.0, -2.0], [-1.5, -1.0]),
        experience([-0.5], [-0.5]),
        experience(None, [-3.0]),
    ]
    d = np.array([-0.5, 1.0, 0.0])
    assert metrics.of_policy(batch) == pytest.approx(
        {"kl": float(np.mean(np.exp(d) - d - 1))}, rel=1e-6
    )
    assert metrics.of_policy([experience([-1.0])]) == {"kl": 0.0}
    moved = [
        np.array([-2.0, -2.0], np.float32),
        None,
        np.array([-1.0], np.float32),
    ]  # the policy's own, where computed
    d = np.array([0.5, 1.0, 0.0, -2.0])
    assert metrics.of_policy(batch, moved) == pytest.approx(
        {"kl": float(np.mean(np.exp(d) - d - 1))}, rel=1e-6
    )


def test_sampler_and_trainer_are_compared_where_both_are_known() -> None:
    batch = [experience([-1.0, -2.0]), experience([-0.5]), experience(None)]
    update = Update(
        {"loss": 0.5}, (np.array([-1.1, -1.7], np.float32), None, np.array([-9.0], np.float32))
    )
    assert metrics.of_update(batch, update, 0) == pytest.approx(
        {
            "loss": 0.5,
            "kl": 0.0,  # no reference is known
            "sampling/sampling_logp_difference/mean": 0.2,
            "sampling/sampling_logp_difference/max": 0.3,
        },
        rel=1e-5,
    )
    assert metrics.of_update(batch, update, 1) == {"loss": 0.5}
    blind = metrics.of_update(batch[1:], Update({}, (None, None)), 0)
    assert set(blind.values()) == {0.0}
