"""Every verb of the contract, called with what is empty, unknown, too small or does not fit.

Both backends answer alike, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama

from offapi.backend import Backend, Sampling
from offapi.episodes import Episode, SamplingMask, Segment
from offapi.errors import BackendError, ModelError
from offapi.model_spec import LoraSpec
from offapi.optimizer import AdamW, Arrays, TrainState
from offapi.policy_loss import Experience, PolicyLoss

Load = Callable[..., Backend]
SHAPE = LoraSpec(rank=4, alpha=6.0)
GREEDY = Sampling(max_tokens=2, stop_ids=())

GOOD = Episode("good", (Segment((1, 2), False), Segment((3, 4), True)))
MUTE = Episode("mute", (Segment((1, 2, 3), False),))
EMPTY = Episode("empty", ())
EARLY = Episode("early", (Segment((1, 2), True),))
ONE_SET = SamplingMask(np.array([3, 4], np.int32), np.array([2], np.int32))
THIN = Episode("thin", (GOOD.segments[0], replace(GOOD.segments[1], sampling_mask=ONE_SET)))


def no_gradient(backend: Backend) -> None:
    with pytest.raises(BackendError, match="no gradient"):
        backend.optim_step(1e-2, AdamW())


# rollout


@pytest.mark.parametrize(
    ("prompts", "n", "keys", "what"),
    [
        ([(1, 2), ()], 1, None, "prompt"),
        ([(1, 2)], 0, None, "at least one completion"),
        ([], 0, None, "at least one completion"),
        ([(1, 2)], -1, None, "at least one completion"),
        ([(1, 2)], 1, [], "one key per prompt, got 0 for 1"),
        ([(1, 2)], 1, [0, 1], "one key per prompt, got 2 for 1"),
        ([], 1, [0], "one key per prompt, got 1 for 0"),
    ],
)
def test_a_rollout_of_nothing_is_refused_at_the_call(
    load: Load, prompts: list[tuple[int, ...]], n: int, keys: list[int] | None, what: str
) -> None:
    backend = load()
    with pytest.raises(ValueError, match=what):
        backend.rollout(prompts, n, GREEDY, keys)
    assert backend.prefilled_tokens == 0


def test_prompts_may_be_lists_or_arrays(load: Load) -> None:
    backend = load()
    (plain,) = backend.rollout([(1, 2, 3)], 1, GREEDY)
    for prompt in ([1, 2, 3], np.array([1, 2, 3])):
        (group,) = backend.rollout([prompt], 1, GREEDY)
        assert group.completions[0].tokens == plain.completions[0].tokens


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.1},
    ],
)
def test_a_sampling_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(GREEDY, **wrong)


@pytest.mark.parametrize("edge", [{"min_p": 1.0}, {"top_p": 1e-9}, {"top_k": 1}])
def test_the_strongest_truncation_leaves_the_likeliest_token(
    load: Load, edge: dict[str, Any]
) -> None:
    backend = load()
    (greedy,) = backend.rollout([(1, 2, 3)], 1, GREEDY)
    (group,) = backend.rollout([(1, 2, 3)], 1, replace(GREEDY, temperature=2.0, **edge))
    (completion,) = group.completions
    assert completion.tokens == greedy.completions[0].tokens
    np.testing.assert_allclose(completion.logprobs, 0.0, atol=1e-6)
    assert completion.sampling_mask is not None
    assert tuple(completion.sampling_mask.ids) == completion.tokens


# score


def test_an_episode_without_a_mask_has_no_logprobs(load: Load) -> None:
    backend = load()
    (alone,) = backend.score([GOOD])
    scores = backend.score([MUTE, GOOD, EMPTY, MUTE])
    assert [score.shape for score in scores] == [(0,), (2,), (0,), (0,)]
    assert {score.dtype for score in scores} == {np.dtype(np.float32)}
    np.testing.assert_allclose(scores[1], alone, atol=1e-5)
    assert [score.shape for score in backend.score([MUTE], by="reference")] == [(0,)]
    assert backend.score([]) == []


@pytest.mark.parametrize("bad", [EARLY, THIN], ids=["early", "thin"])
def test_an_episode_that_cannot_be_scored_is_refused_by_name(adapted: Load, bad: Episode) -> None:
    backend = adapted()
    for call in (
        backend.score,
        backend.forward_backward,
        lambda batch: backend.policy_gradient([Experience(e, 0.0) for e in batch], PolicyLoss()),
    ):
        with pytest.raises(ValueError, match=f"'{bad.id}'"):
            call([GOOD, bad])
    no_gradient(backend)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_scores_need_a_temperature_above_0(load: Load, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        load().score([GOOD], temperature=temperature)
    with pytest.raises(ValueError, match="temperature"):
        PolicyLoss(temperature=temperature)


@pytest.mark.parametrize("token", [-1, tiny_llama.VOCAB])
def test_a_token_the_model_does_not_know_is_refused(adapted: Load, token: int) -> None:
    """Unchecked, MLX reads beyond its arrays and answers with meaningless numbers."""
    backend = adapted()
    with pytest.raises(ValueError, match=f"prompt 1 has token {token}"):
        backend.rollout([(1, 2), (3, token)], 1, GREEDY)
    learned, context = Segment((token,), True), Segment((3, token), False)
    for bad in (
        Episode("odd", (GOOD.segments[0], learned)),
        Episode("odd", (context, GOOD.segments[1])),
    ):
        for call in (
            backend.score,
            backend.forward_backward,
            lambda b: backend.policy_gradient([Experience(e, 1.0) for e in b], PolicyLoss()),
        ):
            with pytest.raises(ValueError, match=f"'odd' has token {token}"):
                call([GOOD, bad])
    last = Episode("last", (Segment((0,), False), Segment((tiny_llama.VOCAB - 1,), True)))
    assert np.isfinite(backend.score([last])[0]).all()
    no_gradient(backend)


# training


def test_an_empty_batch_is_refused(adapted: Load) -> None:
    backend = adapted()
    for call in (backend.forward_backward, lambda b: backend.policy_gradient(b, PolicyLoss())):
        with pytest.raises(ValueError, match="at least one episode"):
            call([])
    no_gradient(backend)


@pytest.mark.parametrize("advantage", [0.0, 1.0])
def test_an_experience_without_masked_tokens_is_refused(adapted: Load, advantage: float) -> None:
    backend = adapted()
    for bad in (MUTE, EMPTY):
        with pytest.raises(ValueError, match=f"'{bad.id}' has no masked tokens"):
            backend.policy_gradient(
                [Experience(GOOD, 1.0), Experience(bad, advantage)], PolicyLoss()
            )
        with pytest.raises(ValueError, match=f"'{bad.id}' has no masked tokens"):
            backend.forward_backward([GOOD, bad])
    no_gradient(backend)


def test_one_masked_token_is_enough(adapted: Load) -> None:
    backend = adapted()
    short = Episode("short", (Segment((5,), False), Segment((6,), True)))
    (logprobs,) = backend.score([short])
    assert backend.forward_backward([short]) == {
        "loss": pytest.approx(-logprobs[0], abs=1e-5),
        "tokens": 1.0,
    }
    update = backend.policy_gradient([Experience(short, 1.0)], PolicyLoss())
    assert update.metrics["tokens"] == 1.0


def test_training_verbs_without_an_adapter_are_refused(load: Load) -> None:
    backend = load()
    for call in (
        lambda: backend.forward_backward([GOOD]),
        lambda: backend.forward_backward([]),
        lambda: backend.policy_gradient([Experience(GOOD, 1.0)], PolicyLoss()),
    ):
        with pytest.raises(BackendError, match="without an adapter"):
            call()
    no_gradient(backend)


# advantages


@pytest.mark.parametrize("rewards", [[], [[]], [[1.0, 0.0], []]])
def test_advantages_without_rewards_are_refused(load: Load, rewards: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one reward"):
        load().advantages(rewards, "grpo")


def test_an_unknown_rule_is_refused_with_the_nearest(load: Load) -> None:
    rule: Any = "grop"
    with pytest.raises(ValueError, match=r"unknown rule 'grop'. Did you mean 'grpo'"):
        load().advantages([[0.0, 1.0]], rule)
    with pytest.raises(ValueError, match="unknown rule"):
        PolicyLoss(rule)


def test_a_reward_that_is_not_finite_is_named(load: Load) -> None:
    with pytest.raises(
        ValueError, match="rewards must be finite, got nan for completion 1 of group 1"
    ):
        load().advantages([[0.0], [0.0, float("nan")]], "grpo")


# states


def test_a_model_without_an_adapter_has_an_empty_state(load: Load, adapter: Arrays) -> None:
    backend = load()
    state = backend.state()
    assert (dict(state.adapter), dict(state.exp_avg), state.step) == ({}, {}, 0)
    backend.restore(state)
    with pytest.raises(BackendError, match="saved adapter does not fit"):
        backend.restore(TrainState(adapter=adapter))
    no_gradient(backend)


def test_foreign_states_are_refused_and_change_nothing(adapted: Load, adapter: Arrays) -> None:
    backend = adapted()
    zeros = {name: np.zeros_like(array) for name, array in adapter.items()}
    for bad in (
        TrainState(adapter={}),
        TrainState(adapter={name: array[:, :2] for name, array in adapter.items()}),
        TrainState(adapter=adapter, exp_avg=zeros, exp_avg_sq=zeros),  # moments before any step
        TrainState(adapter=adapter, step=1),  # a step without moments
        TrainState(adapter=adapter, exp_avg=zeros, step=1),
    ):
        with pytest.raises(BackendError, match=r"the saved \w+ does not fit this model"):
            backend.restore(bad)
    for name, array in backend.state().adapter.items():
        np.testing.assert_array_equal(array, adapter[name])


def test_a_state_in_float64_is_taken_over_as_float32(adapted: Load, adapter: Arrays) -> None:
    backend = adapted()
    expected = backend.score([GOOD])[0]
    wide: Any = {name: array.astype(np.float64) for name, array in adapter.items()}
    backend.restore(TrainState(adapter=wide))
    for name, array in backend.state().adapter.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, adapter[name])
    np.testing.assert_array_equal(backend.score([GOOD])[0], expected)


# loading


def test_a_device_that_is_not_there_is_refused(load: Load) -> None:
    with pytest.raises(BackendError, match="abacus"):
        load(device="abacus")


def test_an_adapter_folder_that_is_empty_is_refused(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter here"):
        load(adapter=tmp_path)
