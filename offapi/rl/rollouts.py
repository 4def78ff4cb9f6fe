"""Groups of fresh completions with their rewards: sampled
by the backend, scored meanwhile in processes of their own.

A completion whose reward is None is left out of its group: no advantage, no loss. Left out:
episodes of several turns.

Shape suffixes in this package: `_P` prompts, `_G` rewarded completions of a group, `_T` tokens of
a completion, `_L` looks at the held-out documents, each of which is a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from offapi.backend import Backend, Completion, Sampling
from offapi.chat.chat import Chat
from offapi.data.documents import Document
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
    """One completion, what its checks said, and the
    reward that it is trained on (None: it has none).
    """

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
        """Those that have a reward."""
        return tuple(one for one in self.rollouts if one.reward is not None)

    @property
    def rewards_G(self) -> tuple[float, ...]:
        """Their rewards."""
        return tuple(one.reward for one in self.rollouts if one.reward is not None)

    @property
    def flat(self) -> bool:
        """Whether the group teaches nothing: no two rewards differ."""
        return len(set(self.rewards_G)) < 2


@dataclass(frozen=True)
class Sampler:
    """What it takes to sample and score. `overlong` is DAPO's soft limit in tokens (0: off)."""

    backend: Backend
    chat: Chat
    rewards: Rewards
    n: int
    sampling: Sampling
    overlong: int = 0

    def groups(self, prompts: Sequence[Prompt], step: int) -> list[RolloutGroup]:
        """A group for each of `prompts`, in order; `step` keys the random stream.

        Raises what rewarding raises.
        """
        sampling = replace(self.sampling, step=step)
        found, asked = {}, {}
        for group in self.backend.rollout([prompt.tokens for prompt in prompts], self.n, sampling):
            texts = [self.chat.decode(completion.tokens) for completion in group.completions]
            asked[group.prompt] = self.rewards.submit(
                [self.asked(prompts[group.prompt], text) for text in texts]
            )
            found[group.prompt] = tuple(zip(group.completions, texts, strict=True))
        return [
            RolloutGroup(
                prompt,
                tuple(
                    Rollout(completion, text, judged, self._shaped(completion, judged.reward))
                    for (completion, text), judged in zip(found[i], asked[i].result(), strict=True)
                ),
            )
            for i, prompt in enumerate(prompts)
        ]

    def asked(self, prompt: Prompt, text: str) -> Asked:
        """What the rewarding processes are told. Gold goes along for the audit alone."""
        return Asked(prompt.row.id, prompt.row.text, text, prompt.row.gold)

    def _shaped(self, completion: Completion, reward: float | None) -> float | None:
        """`reward` with the soft overlong punishment of arXiv 2503.14476, equation 13."""
        if reward is None or not self.overlong:
            return reward
        over = len(completion.tokens) - (self.sampling.max_tokens - self.overlong)
        return reward - min(max(over, 0) / self.overlong, 1.0)


@dataclass(frozen=True)
class Sampled:
    """The groups of a step, and how many prompts were drawn in place of flat ones.

    `recorded`: in an earlier run.
    """

    groups: tuple[RolloutGroup, ...]
    resampled: int = 0
    recorded: bool = False

    @property
    def tokens(self) -> int:
        """Completion tokens of the groups."""
        return sum(len(one.completion.tokens) for group in self.groups for one in group.rollouts)


def sample(
    sampler: Sampler, prompts: Sequence[Prompt], pool: Sequence[Prompt], step: int, resamples: int
) -> Sampled:
    """Groups of `prompts`; flat ones replaced by those of
    other prompts from `pool`, at most `resamples` times.

    Dynamic sampling, arXiv 2503.14476, section 3.2, with a limit: what is still flat then stays.
    """
    groups = sampler.groups(prompts, step * (resamples + 1))
    drawn = 0
    for again in range(1, resamples + 1):
        flat = [i for i, group in enumerate(groups) if group.flat]
        if not flat:
            break
        others = order(sampler.sampling.seed, 2**32 + step * resamples + again, len(pool))[
            : len(flat)
        ]
        fresh = sampler.groups([pool[i] for i in others], step * (resamples + 1) + again)
        drawn += len(fresh)
        for at, group in zip(flat, fresh, strict=False):
            groups[at] = group
    return Sampled(tuple(groups), drawn)


def experiences(
    backend: Backend, groups: Sequence[RolloutGroup], loss: PolicyLoss, *, offline: bool = False
) -> list[Experience]:
    """Every rewarded completion with its advantage and the reference's logprobs, group by group.

    `offline`: sampled by an earlier policy, whose logprobs, where they are known, are the old ones.
    ConfigError for a reward that the rule cannot take.
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
    advantages = [float(one) for advantages_G in advantages_PG for one in advantages_G]
    made = []
    for episode, advantage, reference_T in zip(episodes, advantages, references, strict=True):
        old_T = episode.behaviour if offline else None
        made.append(Experience(episode, advantage, old=old_T, reference=reference_T))
    return made


def _refuse_negative(groups: Sequence[RolloutGroup], loss: PolicyLoss) -> None:
    """Below 0 the mean turns the advantages' signs round: the worst answer would be raised."""
    for group in groups:
        low = min(group.rewards_G, default=0.0)
        if low < 0:
            what = (
                f"{group.prompt.row.id!r} has an answer with reward {low:g}, and {loss.rule}"
                " divides by their mean."
            )
            step = (
                "Shift the rewards to 0 or more (`overlong` lowers them too), or take another rule."
            )
            raise ConfigError(what, where="loss.rule", next_step=step)


def carry_old(batch: Sequence[Experience], logprobs: Sequence[Floats | None]) -> list[Experience]:
    """`batch` with the logprobs of its first inner update as the old ones of the next."""
    pairs = zip(batch, logprobs, strict=True)
    return [
        replace(one, old=own_T) if one.old is None and own_T is not None else one
        for one, own_T in pairs
    ]


def _episode(group: RolloutGroup, i: int) -> Episode:
    completion = group.rewarded[i].completion
    logprobs, mask = completion.logprobs or None, completion.sampling_mask
    sampled = Segment(completion.tokens, True, logprobs, mask)
    return Episode(f"{group.prompt.row.id}#{i}", (Segment(group.prompt.tokens, False), sampled))
