"""Documents that are never trained on, scored every so often: is the reward still what is wanted?

`reward` is what training raises; `audit` what it never sees: gold, and the checks that the task
keeps aside. Left out: what follows from a gap between the two, see `reward_hacking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import nan
from statistics import fmean

import numpy as np

from offapi.backend import Backend
from offapi.episodes import Episode, Segment
from offapi.files import jsonl
from offapi.rl.reward import GOLD
from offapi.rl.rollouts import Prompt, Rollout, Sampler
from offapi.stats.bootstrap import intervals
from offapi.stats.interval import Interval
from offapi.stats.paired import best_of

SURE = 0.025  # one-sided p below which a rise is no luck
Scores = tuple[
    float | None, ...
]  # a number a document; None where nothing audits it, or it got no reward


@dataclass(frozen=True)
class HeldOut:
    """One look at the held-out documents: a number each.

    `audits` are means of all that audits an answer; `parts` each check that is not rewarded, and
    each field of gold, apart. A document whose reward is None takes no part in the mean, nor in
    what changed. Checkpoints hold the fields by these names, hence no suffix `_P`.
    """

    step: int
    rewards: Scores
    audits: Scores
    texts: tuple[str, ...] = ()
    parts: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """Mean reward of the documents that got one; NaN where none did."""
        known = mean(self.rewards)
        return nan if known is None else known

    @property
    def audit(self) -> float | None:
        """Mean audit of the documents that have one."""
        return mean(self.audits)

    @property
    def score(self) -> float:
        """The audit where there is one, else the reward."""
        return self.reward if self.audit is None else self.audit

    def metrics(self) -> dict[str, float]:
        """For metrics.jsonl."""
        found = {"heldout/reward": mean(self.rewards), "heldout/audit": self.audit}
        found["heldout/none"] = float(self.rewards.count(None)) or None
        found |= {f"heldout/audit/{name}": mean(scores) for name, scores in self.parts.items()}
        return {name: value for name, value in found.items() if value is not None}

    def rows(self, prompts: Sequence[Prompt]) -> bytes:
        """A JSONL file: each document's answer, reward and audit."""
        rows = zip(prompts, self.texts, self.rewards, self.audits, strict=True)
        return b"".join(
            jsonl.line({"id": prompt.row.id, "output": text, "reward": reward, "audit": audit})
            for prompt, text, reward, audit in rows
        )


@dataclass(frozen=True)
class HeldOutSet:
    """The held-out prompts, and how the base model's own logprobs were when the run began."""

    sampler: Sampler
    prompts: Sequence[Prompt]
    base: bytes

    @classmethod
    def of(cls, sampler: Sampler, prompts: Sequence[Prompt]) -> HeldOutSet:
        """Probe the base model as it is now."""
        return cls(sampler, prompts, probe(sampler.backend, prompts[0]))

    def look(self, step: int) -> HeldOut:
        """Answer the prompts greedily and score the answers."""
        return look(self.sampler, self.prompts, step)

    def same_base(self) -> bool:
        """Return whether the base model's own logprobs are as they were."""
        return probe(self.sampler.backend, self.prompts[0]) == self.base

    def differing(self) -> list[str]:
        """Return the rows whose answers get other rewards when they are scored a second time."""
        rewards = self.sampler.rewards
        group = self.sampler.groups(self.prompts[:1], 0)[0]
        asked = [self.sampler.asked(group.prompt, one.text) for one in group.rollouts]
        return rewards.not_deterministic(asked, [one.judged for one in group.rollouts])


def look(sampler: Sampler, prompts: Sequence[Prompt], step: int) -> HeldOut:
    """Greedy answers to `prompts`, scored."""
    greedy = replace(
        sampler,
        n=1,
        sampling=replace(sampler.sampling, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
    )
    answers = [group.rollouts[0] for group in greedy.groups(prompts, step)]
    apart = [_parts(answer) for answer in answers]
    return HeldOut(
        step,
        tuple(answer.reward for answer in answers),
        tuple(mean(tuple(answer.judged.audit.values())) for answer in answers),
        tuple(answer.text for answer in answers),
        {
            name: tuple(parts.get(name) for parts in apart)
            for name in sorted({name for one in apart for name in one})
        },
    )


def probe(backend: Backend, prompt: Prompt) -> bytes:
    """The reference's logprobs of a prompt: the same bytes as long as the base is the same."""
    tokens = prompt.tokens[:64]
    episode = Episode("probe", (Segment(tokens[:1], False), Segment(tokens[1:], True)))
    logprobs_T = backend.score([episode], by="reference")[0]
    return np.ascontiguousarray(logprobs_T).tobytes()


def best(history: Sequence[HeldOut]) -> HeldOut:
    """The look with the highest audit, or without one reward;
    of equals that with the higher reward, then the earlier.

    Each is held against the best before it, on the documents that both know.
    """
    return reduce(_better, history)


def change(before_P: Scores, after_P: Scores, level: float = 0.95) -> Interval:
    """Mean of after less before, document by document where
    both are known, with its bootstrap interval; 0 of none.
    """
    pairs = both(before_P, after_P)
    if not pairs:
        return Interval(0.0, 0.0, 0.0)
    return intervals(np.diff(np.array(pairs)), level=level)[0]


def both(before_P: Scores, after_P: Scores) -> list[tuple[float, float]]:
    """The scores of the documents that are known before and after."""
    return [
        (a, b) for a, b in zip(before_P, after_P, strict=True) if a is not None and b is not None
    ]


def means(before_P: Scores, after_P: Scores) -> tuple[float, float]:
    """Their means; 0 of none."""
    pairs = both(before_P, after_P)
    return (fmean(a for a, _ in pairs), fmean(b for _, b in pairs)) if pairs else (0.0, 0.0)


def chance(history: Sequence[HeldOut], chosen: HeldOut) -> float:
    """How likely luck alone lifts a look's reward over
    the first one's as far as `chosen`'s; one-sided p.
    """
    looks = history[1:]
    if chosen is history[0]:
        return 1.0
    rises_LP = []
    for one in looks:
        pairs = zip(history[0].rewards, one.rewards, strict=True)
        rises_LP.append([0.0 if a is None or b is None else b - a for a, b in pairs])
    place = next(i for i, one in enumerate(looks) if one is chosen)
    return best_of(np.array(rises_LP).T, place)


def mean(scores_P: Scores) -> float | None:
    """Of those that are known; None where none is."""
    known = [score for score in scores_P if score is not None]
    return fmean(known) if known else None


def _better(best: HeldOut, other: HeldOut) -> HeldOut:
    audit, others_audit = means(best.audits, other.audits)
    reward, others_reward = means(best.rewards, other.rewards)
    return other if (others_audit, others_reward) > (audit, reward) else best


def _parts(answer: Rollout) -> dict[str, float]:
    """What audits an answer, gold's fields apart."""
    judged = answer.judged
    checks = {
        name: score for name, score in judged.audit.items() if name != GOLD or not judged.fields
    }
    return {**checks, **judged.fields}
