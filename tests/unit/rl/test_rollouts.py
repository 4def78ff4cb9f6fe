"""Groups of completions: replacement, rewards, and the experiences made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama

from offapi.backend import Backend, Completion, Group, Sampling
from offapi.backend import load as load_backend
from offapi.chat.chat import Chat
from offapi.data.documents import Document
from offapi.engine import StartMatcher
from offapi.errors import ConfigError
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.policy_loss import PolicyLoss
from offapi.rl.reward_pool import Judged, Rewards
from offapi.rl.rollouts import (
    Prompt,
    Rollout,
    RolloutGroup,
    Sampler,
    carry_old,
    experiences,
    sample,
)

TASK = """
import offapi
from offapi.checks import is_json


def reward(documents, answers):
    return [None if answer == "?" else float(answer == document) for document, answer in zip(documents, answers)]


task = offapi.Task(
    name="t", instructions="Say it.", schema={"type": "object", "properties": {"a": {}}}, match={"a": "text"},
    checks={"json": (is_json, 1.0)}, reward=reward,
)
"""


class Scripted:
    """A backend with scripted answers that records what it was asked."""

    def __init__(self, chat: Chat, says: Mapping[str, Sequence[str]]) -> None:
        self.chat, self.says = chat, says
        self.calls: list[tuple[list[str], int]] = []

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        sampling: Sampling,
        starts: Sequence[StartMatcher | None] | None = None,
    ) -> Iterator[Group]:
        texts = [self.chat.decode(prompt) for prompt in prompts]
        self.calls.append((texts, sampling.step))
        for i in reversed(range(len(prompts))):  # as groups finish
            tokens = [
                self.chat.encode(said) + self.chat.stop_ids for said in self.says[texts[i]][:n]
            ]
            yield Group(i, tuple(Completion(each, (-0.5,) * len(each), "stop") for each in tokens))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return Chat.load(tiny_llama.write_chat(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rewards]:
    folder = tmp_path_factory.mktemp("task")
    (folder / "task.py").write_text(TASK)
    with Rewards(folder / "task.py", 1, 20.0, folder / "kept.json") as processes:
        yield processes


def prompts(chat: Chat, *names: str) -> list[Prompt]:
    return [Prompt(Document(name, name), chat.encode(name)) for name in names]


def sampler(
    chat: Chat, rewards: Rewards, says: Mapping[str, Sequence[str]], **more: Any
) -> tuple[Sampler, Scripted]:
    backend = Scripted(chat, says)
    sampling = Sampling(8, chat.stop_ids, temperature=1.0)
    return Sampler(backend, chat, rewards, 2, sampling, **more), backend  # type: ignore[arg-type]


def test_groups_keep_the_order_of_prompts_and_their_rewards(chat: Chat, rewards: Rewards) -> None:
    asker, backend = sampler(chat, rewards, {"a": ["a", "x"], "b": ["x", "b"], "c": ["c", "?"]})
    groups = asker.groups(prompts(chat, "a", "b", "c"), 7)
    assert [[one.reward for one in group.rollouts] for group in groups] == [
        [1.0, 0.0],
        [0.0, 1.0],
        [1.0, None],
    ]
    assert [group.prompt.row.id for group in groups] == ["a", "b", "c"]
    assert [group.flat for group in groups] == [False, False, True]
    assert groups[2].rewards_G == (1.0,)
    assert backend.calls == [(["a", "b", "c"], 7)]


def test_flat_groups_are_replaced_and_counted_until_none_is_left(
    chat: Chat, rewards: Rewards
) -> None:
    says = {"a": ["a", "x"], "b": ["x", "x"], "c": ["c", "x"], "d": ["x", "d"]}
    asker, backend = sampler(chat, rewards, says)
    pool = prompts(chat, "c", "d")
    found = sample(asker, prompts(chat, "a", "b"), pool, 3, resamples=4)
    assert found.resampled == 1
    assert [group.flat for group in found.groups] == [False, False]
    assert found.groups[0].prompt.row.id == "a"
    assert found.groups[1].prompt.row.id in ("c", "d")
    assert len(backend.calls) == 2


def test_replacing_stops_at_its_limit_and_draws_anew(chat: Chat, rewards: Rewards) -> None:
    names = ("b", "c", "d", "e", "f")
    asker, backend = sampler(chat, rewards, {name: ["x", "x"] for name in names})
    pool = prompts(chat, *names)
    found = [sample(asker, pool[:2], pool, step, resamples=3) for step in range(3)]
    assert [each.resampled for each in found] == [6, 6, 6]
    assert all(group.flat for each in found for group in each.groups)
    assert (
        len({step for _, step in backend.calls}) == len(backend.calls) == 3 * 4
    )  # no stream is drawn from twice
    assert len({tuple(texts) for texts, _ in backend.calls}) > 3


def test_without_resampling_flat_groups_stay(chat: Chat, rewards: Rewards) -> None:
    asker, backend = sampler(chat, rewards, {"b": ["x", "x"]})
    found = sample(asker, prompts(chat, "b"), prompts(chat, "b"), 3, resamples=0)
    assert (found.resampled, len(found.groups), backend.calls) == (0, 1, [(["b"], 3)])


def test_the_last_tokens_cost_reward_as_in_dapo(chat: Chat, rewards: Rewards) -> None:
    """The last 4 of 8 tokens are the soft limit: 4 cost nothing, 5 a quarter, 8 all."""
    answers = {length: "a" * (length - 1) for length in (3, 4, 5, 6, 8)}
    for length, answer in answers.items():
        asker, _ = sampler(chat, rewards, {answer: [answer, "?"]}, overlong=4)
        group = asker.groups(prompts(chat, answer), 0)[0]
        assert len(group.rollouts[0].completion.tokens) == length
        assert group.rollouts[0].reward == 1.0 - max(length - 4, 0) / 4
        assert group.rollouts[0].judged.reward == 1.0  # what the task said stays
        assert group.rollouts[1].reward is None


@pytest.fixture
def backend(backend_name: str, tmp_path: Path) -> Iterator[Backend]:
    made = load_backend(
        backend_name,
        ModelSpec(tiny_llama.write_chat(tmp_path / "m"), lora=LoraSpec(4), device="cpu"),
    )
    yield made
    made.close()


def group_of(chat: Chat, name: str, *rewards: float | None) -> RolloutGroup:
    rollouts = []
    for i, reward in enumerate(rewards):
        tokens = chat.encode("xyz"[: i + 1]) + chat.stop_ids
        completion = Completion(tokens, (-1.0 - i,) * len(tokens), "stop")
        rollouts.append(Rollout(completion, "", Judged(reward, {}, {}), reward))
    return RolloutGroup(prompts(chat, name)[0], tuple(rollouts))


def test_completions_without_reward_are_left_out(chat: Chat, backend: Backend) -> None:
    loss = PolicyLoss("dr_grpo", max_tokens=8)
    groups = [group_of(chat, "a", 1.0, None, 0.0), group_of(chat, "b", None, None, None)]
    batch = experiences(backend, groups, loss)
    assert [one.advantage for one in batch] == [0.5, -0.5]
    assert [one.episode.id for one in batch] == ["a#0", "a#1"]
    assert [len(one.episode.tokens) for one in batch] == [1 + 2, 1 + 4]
    assert experiences(backend, groups[1:], loss) == []


def test_an_experience_holds_behaviour_and_reference_logprobs(chat: Chat, backend: Backend) -> None:
    batch = experiences(
        backend, [group_of(chat, "a", 1.0, 0.0)], PolicyLoss(temperature=0.5, max_tokens=8)
    )
    expected = backend.score([one.episode for one in batch], by="reference", temperature=0.5)
    for one, reference in zip(batch, expected, strict=True):
        assert one.old is None
        assert one.reference is not None
        np.testing.assert_array_equal(one.reference, reference)
    assert batch[1].episode.behaviour is not None
    assert batch[1].episode.behaviour.tolist() == [-2.0] * 3


def test_a_rule_that_divides_by_the_mean_refuses_negatives(chat: Chat, backend: Backend) -> None:
    groups = [group_of(chat, "a", 1.0, 0.0), group_of(chat, "b", 0.5, -0.25)]
    assert experiences(backend, groups[:1], PolicyLoss("maxrl"))
    assert experiences(backend, groups, PolicyLoss("rloo"))
    with pytest.raises(
        ConfigError, match=r"'b' has an answer with reward -0\.25, and maxrl divides"
    ):
        experiences(backend, groups, PolicyLoss("maxrl"))


def test_offline_a_known_behaviour_is_the_old_policy(chat: Chat, backend: Backend) -> None:
    known = group_of(chat, "a", 1.0, 0.0)
    blank = Rollout(Completion(chat.encode("x"), (), "stop"), "", Judged(1.0, {}, {}), 1.0)
    batch = experiences(
        backend, [known, RolloutGroup(known.prompt, (blank,))], PolicyLoss(), offline=True
    )
    assert batch[0].old is not None
    assert batch[0].old.tolist() == [-1.0, -1.0]
    assert batch[2].old is None
    assert batch[2].episode.behaviour is None


def test_the_first_updates_logprobs_become_the_old_ones(chat: Chat, backend: Backend) -> None:
    batch = experiences(backend, [group_of(chat, "a", 1.0, 0.0)], PolicyLoss(max_tokens=8))
    first, second = np.array([-1, -2], np.float32), np.array([-3, -4], np.float32)
    carried = carry_old(batch, [first, None])
    assert carried[0].old is first
    assert carried[1].old is None
    assert batch[0].old is None
    assert carry_old(carried, [second, second])[0].old is first
