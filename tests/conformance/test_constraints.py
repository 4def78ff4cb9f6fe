"""Constraints on every backend: answers fit, and training sees the distribution that was sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import orjson
import pytest
from bound_answers import MATCH, RECEIPT, SCHEMA, byte_chat, task_of

import offapi
from offapi.backend import Backend, Sampling
from offapi.chat.chat import Chat
from offapi.checks.schema import schema_validator
from offapi.constrain import Constraints
from offapi.data.documents import Document
from offapi.episodes import Episode, Segment
from offapi.model_spec import LoraSpec
from offapi.policy_loss import Experience, PolicyLoss
from offapi.rl.rollouts import Prompt, Sampler

Load = Callable[..., Backend]
TASK = task_of(max_answer_tokens=90, bind=offapi.quote("vendor"))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return byte_chat(tmp_path_factory.mktemp("bytes"))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("level", ["schema", "source"])
def test_every_completion_parses_and_fits(
    load: Load, chat: Chat, level: str, temperature: float
) -> None:
    backend = load()
    start = Constraints.of(TASK, chat, level).start(RECEIPT)  # type: ignore[arg-type]
    sampling = Sampling(TASK.max_answer_tokens, chat.stop_ids, temperature=temperature)
    [group] = backend.rollout([chat.encode(RECEIPT)], 3, sampling, starts=[start])
    for completion in group.completions:
        assert completion.finish == "stop"
        answer = orjson.loads(chat.decode(completion.tokens))
        schema_validator(SCHEMA).validate(answer)
        if level == "source":
            assert answer["vendor"] in " ".join(RECEIPT.split())
            assert answer["date"] == "2017-04-23"
            assert set(MATCH) == set(answer)


def test_neighbours_that_are_free_change_nothing(load: Load, chat: Chat) -> None:
    backend = load()
    sampling = Sampling(90, chat.stop_ids)
    constraints = Constraints.of(TASK, chat, "source")
    prompt = chat.encode(RECEIPT)
    [alone] = backend.rollout([prompt], 1, sampling, starts=[constraints.start(RECEIPT)])
    start = constraints.start(RECEIPT, second=True, candidates=3)
    [group] = backend.rollout([prompt], 4, sampling, starts=[start])
    assert group.completions[0].tokens == alone.completions[0].tokens
    texts = [chat.decode(completion.tokens) for completion in group.completions]
    assert not texts[1].startswith('{"vendor"')
    vendors = [orjson.loads(text)["vendor"] for text in (texts[0], *texts[2:])]
    assert len({vendor[0] for vendor in vendors}) == 3


def test_the_first_ratio_of_bound_completions_is_one(load: Load, chat: Chat) -> None:
    """Behaviour logprobs are of the masked distribution, and so are the trainer's."""
    backend = load(lora=LoraSpec(rank=4, alpha=6.0))
    constraints = Constraints.of(TASK, chat, "source")
    sampling = Sampling(90, chat.stop_ids, temperature=1.0, seed=3)
    prompt = chat.encode(RECEIPT)
    [group] = backend.rollout([prompt], 4, sampling, starts=[constraints.start(RECEIPT)])
    batch = [
        Experience(
            Episode(
                f"row#{i}",
                (
                    Segment(prompt, False),
                    Segment(one.tokens, True, one.logprobs, one.sampling_mask),
                ),
            ),
            advantage=(-1.0) ** i,
            old=np.array(one.logprobs, np.float32),
        )
        for i, one in enumerate(group.completions)
    ]
    update = backend.policy_gradient(batch, PolicyLoss(temperature=1.0, max_tokens=90))
    assert update.metrics["ratio/mean"] == pytest.approx(1.0, abs=1e-4)
    assert update.metrics["ratio/max"] == pytest.approx(1.0, abs=1e-3)
    for experience, one in zip(batch, group.completions, strict=True):
        free = Episode("free", (Segment(prompt, False), Segment(one.tokens, True)))
        bound, unbound = backend.score([experience.episode, free])
        assert bound == pytest.approx(np.array(one.logprobs), abs=1e-4)
        assert unbound.sum() < bound.sum() - 1.0  # what was masked had probability


def test_grpo_samples_within_its_constraint(load: Load, chat: Chat) -> None:
    backend = load()
    bound = Constraints.of(TASK, chat, "source")
    sampling = Sampling(90, chat.stop_ids, temperature=1.0)
    sampler = Sampler(backend, chat, Unscored(), 2, sampling, constraints=bound)  # type: ignore[arg-type]
    prompts = [Prompt(Document("a", RECEIPT), chat.encode(RECEIPT))]
    for each in (sampler, replace(sampler, n=1, sampling=replace(sampling, temperature=0.0))):
        [group] = each.groups(prompts, 0)
        for rollout in group.rollouts:
            assert orjson.loads(rollout.text)["date"] == "2017-04-23"


class Unscored:
    """Rewards that nobody waits for."""

    def submit(self, asked: list[object]) -> Unscored:
        self.asked = asked
        return self

    def result(self) -> list[object]:
        from offapi.rl.reward_pool import Judged

        return [Judged(0.0, {}, {}) for _ in self.asked]
