"""Held-out documents, scored every few steps: does the reward still measure what is meant?

`reward` is what training raises. `audit` is what training never sees: gold, and the checks that the
task keeps aside. Left out: what follows from a gap between the two, see `reward_hacking`.
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

SURE = 0.025  # largest one-sided p at which a rise is significant
# one score a document; None where nothing audits it, or where it got no reward
Scores = tuple[float | None, ...]


@dataclass(frozen=True)
class HeldOut:
    """One evaluation on the held-out documents ("look"), with a number for each.

    `audits` are means of all that audits an answer; `parts` holds each check that is not rewarded
    and each field of gold separately. A document whose reward is None does not count in means or
    changes. Checkpoints store the fields under these names, hence no suffix `_P`.
    """

    step: int
    rewards: Scores
    audits: Scores
    texts: tuple[str, ...] = ()
    parts: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """The mean reward of the documents that got one; NaN where none did."""
        known = mean(self.rewards)
        return nan if known is None else known

    @property
    def audit(self) -> float | None:
        """The mean audit of the documents that have one."""
        return mean(self.audits)

    @property
    def score(self) -> float:
        """The audit, or the reward where there is no audit."""
        return self.reward if self.audit is None else self.audit

    def metrics(self) -> dict[str, float]:
        """Return the values for metrics.jsonl."""
        metrics = {"heldout/reward": mean(self.rewards), "heldout/audit": self.audit}
        metrics["heldout/none"] = float(self.rewards.count(None)) or None
        metrics |= {f"heldout/audit/{name}": mean(scores) for name, scores in self.parts.items()}
        return {name: value for name, value in metrics.items() if value is not None}

    def rows(self, prompts: Sequence[Prompt]) -> bytes:
        """Return a JSONL file: each document's answer, reward and audit."""
        rows = zip(prompts, self.texts, self.rewards, self.audits, strict=True)
        return b"".join(
            jsonl.line({"id": prompt.row.id, "output": text, "reward": reward, "audit": audit})
            for prompt, text, reward, audit in rows
        )


@dataclass(frozen=True)
class HeldOutSet:
    """The held-out prompts, and the base model's own logprobs when the run began."""

    sampler: Sampler
    prompts: Sequence[Prompt]
    base: bytes  # of `probe`

    @classmethod
    def of(cls, sampler: Sampler, prompts: Sequence[Prompt]) -> HeldOutSet:
        """Record the base model's logprobs as they are now."""
        return cls(sampler, prompts, probe(sampler.backend, prompts[0]))

    def look(self, step: int) -> HeldOut:
        """Answer the prompts greedily and score the answers."""
        return look(self.sampler, self.prompts, step)

    def same_base(self) -> bool:
        """Return whether the base model's own logprobs are as they were."""
        return probe(self.sampler.backend, self.prompts[0]) == self.base

    def differing(self) -> list[str]:
        """Return the rows whose answers get different rewards when they are scored again."""
        rewards = self.sampler.rewards
        group = self.sampler.groups(self.prompts[:1], 0)[0]
        asked = [self.sampler.asked(group.prompt, rollout) for rollout in group.rollouts]
        return rewards.not_deterministic(asked, [rollout.judged for rollout in group.rollouts])


def look(sampler: Sampler, prompts: Sequence[Prompt], step: int) -> HeldOut:
    """Answer `prompts` greedily and score the answers."""
    greedy = replace(
        sampler,
        n=1,
        sampling=replace(sampler.sampling, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
    )
    answers = [group.rollouts[0] for group in greedy.groups(prompts, step)]
    rewards_P = tuple(answer.reward for answer in answers)
    audits_P = tuple(mean(tuple(answer.judged.audit.values())) for answer in answers)
    texts_P = tuple(answer.text for answer in answers)
    parts_P = [_parts(answer) for answer in answers]
    by_name: dict[str, Scores] = {}
    for name in sorted({name for parts in parts_P for name in parts}):
        by_name[name] = tuple(parts.get(name) for parts in parts_P)
    return HeldOut(step, rewards_P, audits_P, texts_P, by_name)


def probe(backend: Backend, prompt: Prompt) -> bytes:
    """Return the reference's logprobs of a prompt: equal bytes while the base is unchanged."""
    tokens = prompt.tokens[:64]
    episode = Episode("probe", (Segment(tokens[:1], False), Segment(tokens[1:], True)))
    logprobs_T = backend.score([episode], by="reference")[0]
    return np.ascontiguousarray(logprobs_T).tobytes()


def best(history: Sequence[HeldOut]) -> HeldOut:
    """Return the look with the highest audit, or the highest reward where nothing audits.

    Between equals the higher reward wins, then the earlier look. Each is compared with the best
    before it, on the documents known in both.
    """
    return reduce(_better, history)


def change(before_P: Scores, after_P: Scores, level: float = 0.95) -> Interval:
    """Return the mean of after minus before with its bootstrap interval; 0 of none.

    Paired by document, over those known in both.
    """
    pairs = both(before_P, after_P)
    if not pairs:
        return Interval(0.0, 0.0, 0.0)
    return intervals(np.diff(np.array(pairs)), level=level)[0]


def both(before_P: Scores, after_P: Scores) -> list[tuple[float, float]]:
    """Return the scores of the documents that are known before and after."""
    return [
        (a, b) for a, b in zip(before_P, after_P, strict=True) if a is not None and b is not None
    ]


def means(before_P: Scores, after_P: Scores) -> tuple[float, float]:
    """Return both means over the documents known in both; 0 of none."""
    pairs = both(before_P, after_P)
    if not pairs:
        return 0.0, 0.0
    before, after = zip(*pairs, strict=True)
    return fmean(before), fmean(after)


def chance(history: Sequence[HeldOut], chosen: HeldOut) -> float:
    """Return the one-sided p of the reward's rise from the first look to `chosen`.

    The choice of the best look is accounted for.
    """
    looks = history[1:]
    if chosen is history[0]:
        return 1.0
    rises_LP = []
    for seen in looks:
        pairs = zip(history[0].rewards, seen.rewards, strict=True)
        rises_LP.append([0.0 if a is None or b is None else b - a for a, b in pairs])
    place = next(i for i, seen in enumerate(looks) if seen is chosen)
    return best_of(np.array(rises_LP).T, place)


def mean(scores_P: Scores) -> float | None:
    """Return the mean of the known scores; None where none is known."""
    known = [score for score in scores_P if score is not None]
    return fmean(known) if known else None


def _better(best: HeldOut, other: HeldOut) -> HeldOut:
    audit, others_audit = means(best.audits, other.audits)
    reward, others_reward = means(best.rewards, other.rewards)
    return other if (others_audit, others_reward) > (audit, reward) else best


def _parts(answer: Rollout) -> dict[str, float]:
    """Return each audit of an answer, with the fields of gold in place of gold."""
    judged = answer.judged
    checks = {
        name: score for name, score in judged.audit.items() if name != GOLD or not judged.fields
    }
    return {**checks, **judged.fields}
