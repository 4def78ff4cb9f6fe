"""Groups of completions with their rewards: sampled by the backend, scored in parallel.

A completion whose reward is None is left out of its group: no advantage, no loss. Left out:
how an agent's episodes are run, see `offapi.rl.agent_rollouts`.

Shape suffixes in this package: `_P` prompts, `_G` rewarded completions of a group, `_T` tokens of a
completion, `_L` looks (evaluations) at the held-out documents, each of which is a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offapi.agent.episode import AgentEpisode
from offapi.agent.unfinished import AgentAsk
from offapi.backend import Backend, Completion, Sampling
from offapi.chat.chat import Chat
from offapi.constrain import Constraints
from offapi.data.documents import Document
from offapi.engine import StartMatcher
from offapi.episodes import Episode, Floats, Segment
from offapi.errors import ConfigError
from offapi.policy_loss import Experience, PolicyLoss
from offapi.randomness import order
from offapi.rl.agent_rollouts import (
    AgentSampler,
    by_token,
    learned_segments,
    returns,
    sampled_tokens,
    turn_groups,
)
from offapi.rl.reward_pool import Asked, Judged, Rewards
from offapi.task.task import Message

Credit = Literal["episode", "turn"]


@dataclass(frozen=True)
class Prompt:
    """A document, and the messages and tokens that ask for its answer."""

    row: Document
    tokens: tuple[int, ...]
    messages: tuple[Message, ...] = ()  # only an agent's are used


@dataclass(frozen=True)
class Rollout:
    """One completion, its checks' scores, and the reward it is trained on (None: it has none).

    An agent's episode is one too: the completion is then all that was sampled in it.
    """

    completion: Completion
    text: str
    judged: Judged
    reward: float | None
    episode: AgentEpisode | None = None

    @property
    def returns_K(self) -> NDArray[np.float64]:
        """The reward to go of each turn; of a single answer its reward."""
        steps = self.episode.rewards if self.episode else (0.0,)
        return returns(steps, (self.reward or 0.0) - sum(steps))


@dataclass(frozen=True)
class DrawnAnswer:
    """What was sampled: a completion with its text, or an episode."""

    completion: Completion
    text: str
    episode: AgentEpisode | None = None

    @classmethod
    def of(cls, episode: AgentEpisode) -> DrawnAnswer:
        """Return an episode as what was sampled."""
        return cls(sampled_tokens(episode), episode.text, episode)


@dataclass(frozen=True)
class RolloutGroup:
    """All completions of one prompt."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]

    @property
    def rewarded(self) -> tuple[Rollout, ...]:
        """The rollouts that have a reward."""
        return tuple(rollout for rollout in self.rollouts if rollout.reward is not None)

    @property
    def rewards_G(self) -> tuple[float, ...]:
        """The rewards of those rollouts."""
        return tuple(rollout.reward for rollout in self.rollouts if rollout.reward is not None)

    @property
    def flat(self) -> bool:
        """Whether the group teaches nothing: no two rewards differ."""
        return len(set(self.rewards_G)) < 2


@dataclass(frozen=True)
class Sampler:
    """Everything needed to sample and score; `overlong` is DAPO's soft limit in tokens (0: off)."""

    backend: Backend
    chat: Chat
    rewards: Rewards
    n: int
    sampling: Sampling
    overlong: int = 0
    constraints: Constraints | None = None  # what bounds every completion
    agent: AgentSampler | None = None  # None: each completion is one answer

    def groups(self, prompts: Sequence[Prompt], step: int) -> list[RolloutGroup]:
        """Return a group for each of `prompts`, in order; `step` keys the random stream.

        Raises what rewarding raises.
        """
        sampling = replace(self.sampling, step=step)
        found, rewards = {}, {}
        for at, drawn in self._drawn(prompts, sampling):
            asked = [self.asked(prompts[at], one) for one in drawn]
            found[at], rewards[at] = drawn, self.rewards.submit(asked)
        groups = []
        for i, prompt in enumerate(prompts):
            pairs = zip(found[i], rewards[i].result(), strict=True)
            rollouts = tuple(self._rollout(one, judged) for one, judged in pairs)
            groups.append(RolloutGroup(prompt, rollouts))
        return groups

    def _drawn(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, list[DrawnAnswer]]]:
        """Yield each prompt's index with its completions or episodes, as groups finish."""
        if self.agent is not None:
            asks = [
                AgentAsk(prompt.row, prompt.messages, key, self.n)
                for key, prompt in enumerate(prompts)
            ]
            for at, episodes in self.agent.groups(self.backend, asks, sampling):
                yield at, [DrawnAnswer.of(episode) for episode in episodes]
            return
        tokens = [prompt.tokens for prompt in prompts]
        starts = self._starts(prompts)
        for group in self.backend.rollout(tokens, self.n, sampling, starts=starts):
            asked = tokens[group.prompt]
            texts = [self.chat.answer_text(asked, each.tokens) for each in group.completions]
            yield (
                group.prompt,
                [
                    DrawnAnswer(completion, text)
                    for completion, text in zip(group.completions, texts, strict=True)
                ],
            )

    def _rollout(self, drawn: DrawnAnswer, judged: Judged) -> Rollout:
        reward = self._shaped(drawn.completion, judged.reward)
        if drawn.episode is not None and reward is not None:
            reward += sum(drawn.episode.rewards)
        if not drawn.completion.tokens:  # a prompt that left no room for a turn
            reward = None
        return Rollout(drawn.completion, drawn.text, judged, reward, drawn.episode)

    def _starts(self, prompts: Sequence[Prompt]) -> list[StartMatcher | None] | None:
        if self.constraints is None:
            return None
        return [self.constraints.start(prompt.row.text) for prompt in prompts]

    def asked(self, prompt: Prompt, drawn: DrawnAnswer | Rollout) -> Asked:
        """Return what the rewarding processes get; gold is for the audit alone."""
        row, episode = prompt.row, drawn.episode
        if episode is None:
            return Asked(row.id, row.text, drawn.text, row.gold)
        return Asked(row.id, row.text, drawn.text, row.gold, episode.messages, episode.score)

    def _shaped(self, completion: Completion, reward: float | None) -> float | None:
        """Return `reward` less the soft overlong punishment (arXiv 2503.14476, equation 13)."""
        if reward is None or not self.overlong:
            return reward
        over = len(completion.tokens) - (self.sampling.max_tokens - self.overlong)
        return reward - min(max(over, 0) / self.overlong, 1.0)


@dataclass(frozen=True)
class Sampled:
    """The groups of a step, and how many prompts were drawn to replace flat ones.

    `recorded`: sampled in an earlier run.
    """

    groups: tuple[RolloutGroup, ...]
    resampled: int = 0
    recorded: bool = False

    @property
    def tokens(self) -> int:
        """The number of completion tokens in the groups."""
        rollouts = [rollout for group in self.groups for rollout in group.rollouts]
        return sum(len(rollout.completion.tokens) for rollout in rollouts)


def sample(
    sampler: Sampler, prompts: Sequence[Prompt], pool: Sequence[Prompt], step: int, resamples: int
) -> Sampled:
    """Sample groups of `prompts`, and replace flat ones up to `resamples` times from `pool`.

    Dynamic sampling (arXiv 2503.14476, section 3.2) with a limit: groups still flat then stay.
    """
    groups = sampler.groups(prompts, step * (resamples + 1))
    drawn = 0
    for attempt in range(1, resamples + 1):
        flat = [i for i, group in enumerate(groups) if group.flat]
        if not flat:
            break
        stream = 2**32 + step * resamples + attempt
        others = order(sampler.sampling.seed, stream, len(pool))[: len(flat)]
        fresh = sampler.groups([pool[i] for i in others], step * (resamples + 1) + attempt)
        drawn += len(fresh)
        for at, group in zip(flat, fresh, strict=False):
            groups[at] = group
    return Sampled(tuple(groups), drawn)


def experiences(
    backend: Backend,
    groups: Sequence[RolloutGroup],
    loss: PolicyLoss,
    *,
    offline: bool = False,
    credit: Credit = "episode",
) -> list[Experience]:
    """Return each rewarded completion with its advantage and the reference's logprobs.

    Group by group. `offline`: an earlier policy sampled them, whose logprobs, where known, are the
    old ones. With `credit` "turn", each turn's tokens have an advantage of their own: see
    docs/agents.md. Raises ConfigError for a reward that the rule cannot take.
    """
    if loss.shape.advantage == "mean":
        _refuse_negative(groups, loss)
    judged = [group for group in groups if group.rewards_G]
    if not judged:
        return []
    episodes = [_episode(group, i) for group in judged for i in range(len(group.rewarded))]
    references = backend.score(episodes, by="reference", temperature=loss.temperature)
    advantages = _by_turn if credit == "turn" else _by_episode
    batch = []
    pairs = zip(episodes, advantages(backend, judged, loss), references, strict=True)
    for episode, (advantage, by_token_T), reference_T in pairs:
        old_T = episode.behaviour if offline else None
        batch.append(Experience(episode, advantage, old_T, reference_T, by_token_T))
    return batch


Advantage = tuple[float, Floats | None]  # an episode's, and its tokens' own


def _by_episode(
    backend: Backend, groups: Sequence[RolloutGroup], loss: PolicyLoss
) -> list[Advantage]:
    advantages_PG = backend.advantages([group.rewards_G for group in groups], loss.rule)
    return [(float(value), None) for advantages_G in advantages_PG for value in advantages_G]


def _by_turn(backend: Backend, groups: Sequence[RolloutGroup], loss: PolicyLoss) -> list[Advantage]:
    """Compare each turn's reward to go with the group's at the same turn, by the rule's formula."""
    found: list[Advantage] = []
    for group in groups:
        compared = turn_groups([rollout.returns_K for rollout in group.rewarded])
        advantages_KG = np.array(backend.advantages(compared, loss.rule))
        for rollout, own_K in zip(group.rewarded, advantages_KG.T.tolist(), strict=True):
            own_T = None if rollout.episode is None else by_token(own_K, rollout.episode)
            found.append((own_K[0], own_T))
    return found


def _refuse_negative(groups: Sequence[RolloutGroup], loss: PolicyLoss) -> None:
    """Raise ConfigError for rewards below 0, whose mean would flip the advantages' signs."""
    for group in groups:
        low = min((float(one.returns_K.min()) for one in group.rewarded), default=0.0)
        if low < 0:
            what = (
                f"{group.prompt.row.id!r} has an answer with reward {low:g}, and {loss.rule}"
                " divides by the mean reward."
            )
            step = (
                "Shift the rewards to 0 or more (`overlong` lowers them too), or use another rule."
            )
            raise ConfigError(what, where="loss.rule", next_step=step)


def carry_old(batch: Sequence[Experience], logprobs: Sequence[Floats | None]) -> list[Experience]:
    """Return `batch` with the first inner update's logprobs as the old ones of the next."""
    pairs = zip(batch, logprobs, strict=True)
    return [
        replace(experience, old=own_T)
        if experience.old is None and own_T is not None
        else experience
        for experience, own_T in pairs
    ]


def _episode(group: RolloutGroup, i: int) -> Episode:
    rollout = group.rewarded[i]
    if rollout.episode is not None:
        return Episode(f"{group.prompt.row.id}#{i}", learned_segments(rollout.episode))
    completion = rollout.completion
    logprobs, mask = completion.logprobs or None, completion.sampling_mask
    sampled = Segment(completion.tokens, True, logprobs, mask)
    return Episode(f"{group.prompt.row.id}#{i}", (Segment(group.prompt.tokens, False), sampled))
