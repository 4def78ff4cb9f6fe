"""A step whose groups teach nothing still trains on the KL, where `loss.beta` is set."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_llama

from offapi.backend import Backend, Sampling, load
from offapi.data.documents import Document
from offapi.episodes import Episode, Segment
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.policy_loss import PolicyLoss
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup, Sampled
from offapi.rl.timings import Clock

PROMPTS = tuple(Prompt(Document(f"d{i}", "d"), (256, *range(60, 70 + i))) for i in range(3))


@pytest.fixture
def backend(backend_name: str, tmp_path: Path) -> Iterator[Backend]:
    made = load(
        backend_name,
        ModelSpec(tiny_llama.write_chat(tmp_path / "m"), lora=LoraSpec(4), device="cpu"),
    )
    yield made
    made.close()


def step_off(backend: Backend) -> None:
    """Move the policy away from its reference."""
    draw, state = np.random.default_rng(0), backend.state()
    adapter = {
        name: a + 0.05 * draw.standard_normal(a.shape).astype(np.float32)
        for name, a in state.adapter.items()
    }
    backend.restore(replace(state, adapter=adapter))


def flat(backend: Backend) -> Sampled:
    """Return groups whose rewards are all the same."""
    sampling = Sampling(8, (tiny_llama.EOS,), temperature=1.0)
    groups = {
        group.prompt: group
        for group in backend.rollout([prompt.tokens for prompt in PROMPTS], 4, sampling)
    }
    worth = Judged(0.0, {}, {})
    rollouts = [
        tuple(Rollout(one, "", worth, 0.0) for one in groups[i].completions)
        for i in range(len(PROMPTS))
    ]
    return Sampled(
        tuple(RolloutGroup(prompt, own) for prompt, own in zip(PROMPTS, rollouts, strict=True))
    )


def update(backend: Backend, sampled: Sampled, **loss: Any) -> tuple[dict[str, float], list[Any]]:
    """Return the recipe's metrics of its updates, and their problems."""
    recipe, keys = (
        importlib.import_module(f"offapi.recipes.{name}") for name in ("grpo", "grpo_config")
    )
    config = keys.Config(task=Path("t"), data=Path("d"), num_iterations=2, loss=PolicyLoss(**loss))
    inputs = SimpleNamespace(task=SimpleNamespace(max_answer_tokens=8, is_agent=False), recorded=())
    job = SimpleNamespace(config=config, inputs=inputs)
    found: tuple[dict[str, float], list[Any]] = recipe.update(job, backend, Clock(), sampled, 1e-2)
    return found


def kl(backend: Backend, sampled: Sampled) -> float:
    """Return the mean squared difference of policy and reference, halved (k2)."""
    episodes = [
        Episode("e", (Segment(group.prompt.tokens, False), Segment(one.completion.tokens, True)))
        for group in sampled.groups
        for one in group.rollouts
    ]
    pairs = zip(backend.score(episodes), backend.score(episodes, by="reference"), strict=True)
    return float(np.concatenate([(a - b) ** 2 / 2 for a, b in pairs]).mean())


@pytest.mark.parametrize("form", ["ratio_k3", "k2"])
def test_the_kl_pulls_the_policy_back_in_a_step_without_signal(backend: Backend, form: str) -> None:
    step_off(backend)
    sampled = flat(backend)
    before = kl(backend, sampled)
    measured, problems = update(backend, sampled, beta=0.1, kl=form)
    assert measured["grad_norm"] > 0
    assert backend.state().step == 2
    assert kl(backend, sampled) < before
    assert problems == []


def test_without_beta_nothing_is_trained(backend: Backend) -> None:
    step_off(backend)
    assert "grad_norm" not in update(backend, flat(backend))[0]
    assert backend.state().step == 0


def test_a_policy_that_is_its_reference_still_stays_where_it_is(backend: Backend) -> None:
    assert "grad_norm" not in update(backend, flat(backend), beta=0.1)[0]
    assert backend.state().step == 0


def test_without_any_reward_nothing_is_trained(backend: Backend) -> None:
    step_off(backend)
    groups = flat(backend).groups
    none = [
        replace(group, rollouts=tuple(replace(one, reward=None) for one in group.rollouts))
        for group in groups
    ]
    assert "grad_norm" not in update(backend, Sampled(tuple(none)), beta=0.1)[0]
