"""Groups of completions with their rewards: sampled by the backend, scored in parallel.

A completion whose reward is None is left out of its group: no advantage, no loss. Left out:
episodes of several turns.

Shape suffixes in this package: `_P` prompts, `_G` rewarded completions of a group, `_T` tokens of a
completion, `_L` looks (evaluations) at the held-out documents, each of which is a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from offapi.backend import Backend, Completion, Sampling
from offapi.chat.chat import Chat
from offapi.constrain import Constraints
from offapi.data.documents import Document
from offapi.engine import StartMatcher
from offapi.episodes import Episode, Floats, Segment
from offapi.errors import ConfigError
from offapi.policy_loss import Experience, PolicyLoss
from offapi.randomness import order
from offapi.rl.reward_pool import Asked, Judged, Rewards


@dataclass(frozen=True)
class Prompt:
    """A document and the tokens that ask for its answer."""

    row: Document
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Rollout:
    """One completion, its checks' scores, and the reward it is trained on (None: it has none)."""

    completion: Completion
    text: str
    judged: Judged
    reward: float | None


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

    def groups(self, prompts: Sequence[Prompt], step: int) -> list[RolloutGroup]:
        """Return a group for each of `prompts`, in order; `step` keys the random stream.

        Raises what rewarding raises.
        """
        sampling = replace(self.sampling, step=step)
        completions, rewards = {}, {}
        tokens = [prompt.tokens for prompt in prompts]
        starts = self._starts(prompts)
        for group in self.backend.rollout(tokens, self.n, sampling, starts=starts):
            asked = tokens[group.prompt]
            texts = [self.chat.answer_text(asked, each.tokens) for each in group.completions]
            rewards[group.prompt] = self.rewards.submit(
                [self.asked(prompts[group.prompt], text) for text in texts]
            )
            completions[group.prompt] = tuple(zip(group.completions, texts, strict=True))
        groups = []
        for i, prompt in enumerate(prompts):
            pairs = zip(completions[i], rewards[i].result(), strict=True)
            rollouts = tuple(
                Rollout(completion, text, judged, self._shaped(completion, judged.reward))
                for (completion, text), judged in pairs
            )
            groups.append(RolloutGroup(prompt, rollouts))
        return groups

    def _starts(self, prompts: Sequence[Prompt]) -> list[StartMatcher | None] | None:
        if self.constraints is None:
            return None
        return [self.constraints.start(prompt.row.text) for prompt in prompts]

    def asked(self, prompt: Prompt, text: str) -> Asked:
        """Return what the rewarding processes get; gold is for the audit alone."""
        return Asked(prompt.row.id, prompt.row.text, text, prompt.row.gold)

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
    backend: Backend, groups: Sequence[RolloutGroup], loss: PolicyLoss, *, offline: bool = False
) -> list[Experience]:
    """Return each rewarded completion with its advantage and the reference's logprobs.

    Group by group. `offline`: an earlier policy sampled them, whose logprobs, where known, are the
    old ones. Raises ConfigError for a reward that the rule cannot take.
    """
    if loss.shape.advantage == "mean":
        _refuse_negative(groups, loss)
    judged = [group for group in groups if group.rewards_G]
    if not judged:
        return []
    episodes = [_episode(group, i) for group in judged for i in range(len(group.rewarded))]
    references = backend.score(episodes, by="reference", temperature=loss.temperature)
    rewards_PG = [group.rewards_G for group in judged]
    advantages_PG = backend.advantages(rewards_PG, loss.rule)
    advantages = [float(value) for advantages_G in advantages_PG for value in advantages_G]
    batch = []
    for episode, advantage, reference_T in zip(episodes, advantages, references, strict=True):
        old_T = episode.behaviour if offline else None
        batch.append(Experience(episode, advantage, old=old_T, reference=reference_T))
    return batch


def _refuse_negative(groups: Sequence[RolloutGroup], loss: PolicyLoss) -> None:
    """Raise ConfigError for rewards below 0, whose mean would flip the advantages' signs."""
    for group in groups:
        low = min(group.rewards_G, default=0.0)
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
    completion = group.rewarded[i].completion
    logprobs, mask = completion.logprobs or None, completion.sampling_mask
    sampled = Segment(completion.tokens, True, logprobs, mask)
    return Episode(f"{group.prompt.row.id}#{i}", (Segment(group.prompt.tokens, False), sampled))
