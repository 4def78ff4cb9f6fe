"""Is the reward being gamed? It rises on the held-out
documents, and what it stands for does not; or that is lost.

What it stands for is the audit as a whole, and each of its parts: a field that falls shows nothing
in a mean that others raise. Left out: what the run does about it, see `run_log`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

from offapi.rl.heldout import HeldOut, Scores, change
from offapi.rl.rollouts import Prompt
from offapi.stats.interval import Interval

RISE = 0.02  # of the reward, below which nothing is made of it
LOST = 0.99  # confidence that the audit fell, where no rise of the reward speaks for it
# of the reward's rise, or of the room above the audit if that is less: what an honest audit gains
SHARE = 0.25


@dataclass(frozen=True)
class Gamed:
    """Since the look `base` the reward rose and the audit
    did not, or it or its `part` fell; both changes.
    """

    base: HeldOut
    reward: Interval
    audit: Interval
    part: str | None = None  # None: the audit as a whole

    @property
    def rose(self) -> bool:
        """Whether the reward surely rose."""
        return self.reward.low > 0

    @property
    def meaning(self) -> str:
        """What did not rise, in words."""
        return f"{self.part!r} of the audit" if self.part else "what it stands for (the audit)"

    @property
    def sentence(self) -> str:
        """What happened, for people."""
        verdict = "is being gamed" if self.rose else "does not stand for what is meant"
        return (
            f"the reward {verdict}: since step {self.base.step} it changed by"
            f" {self.reward.points()} points on held-out documents, while {self.meaning} changed by"
            f" {self.audit.points()}."
        )


def gamed(history: Sequence[HeldOut]) -> Gamed | None:
    """What shows that the reward is being gamed; None where nothing does.

    The last two looks together, as one alone is noisy, are held against the first look, since which
    the audit must surely have gained less than its share, and against the best two in a row, since
    which it must have fallen. A part must have fallen since one of them, the level divided by their
    number and by the two (Bonferroni). Where the reward did not rise, the audit must have fallen
    since the first look with confidence LOST.
    """
    first = history[0]
    if len(history) < 2 or first.audit is None:
        return None
    last = _together(history[1:][-2:])
    pairs = sorted(
        (_together(pair) for pair in pairwise(history[:-2])), key=lambda pair: pair.score
    )
    seen = [reward for one in history for reward in one.rewards if reward is not None]
    scale = max(
        1.0, max(seen, default=0.0) - min(seen, default=0.0)
    )  # a task's own rewards have any size
    for base in (first, *pairs[-1:]):
        reward = change(base.rewards, last.rewards)
        rise, room = reward.mean / scale, 1.0 - base.score
        if reward.low <= 0 or rise < RISE:
            continue
        since = next(one for one in history if one.step == base.step)
        audit = change(base.audits, last.audits)
        if audit.high < (SHARE * min(rise, room) if base is first else 0.0):
            return Gamed(since, reward, audit)
        fallen = _fallen(base, last)
        if fallen is not None:
            return Gamed(since, reward, fallen[1], fallen[0])
    lost = change(first.audits, last.audits, LOST)
    if (
        len(history) > 2
        and lost.high < 0
        and all(one.score <= first.score - RISE for one in history[-2:])
    ):
        return Gamed(first, change(first.rewards, last.rewards), lost)
    return None


def examples(
    found: Gamed, last: HeldOut, prompts: Sequence[Prompt], count: int = 3
) -> list[dict[str, Any]]:
    """The documents whose reward rose most beside their
    audit, or whose part of it fell most, with both answers.
    """
    base, part = found.base, found.part
    before_P, after_P = ((one.parts[part] if part else one.audits) for one in (base, last))
    audits, rises = _rises(before_P, after_P), _rises(base.rewards, last.rewards)
    order = sorted(
        audits.keys() & rises.keys(),
        key=lambda i: (audits[i] - (0.0 if part else rises[i]), -rises[i], i),
    )
    return [
        {
            "id": prompts[i].row.id,
            "before": base.texts[i],
            "after": last.texts[i],
            "reward": [base.rewards[i], last.rewards[i]],
            "audit": [before_P[i], after_P[i]],
        }
        for i in order[:count]
    ]


def _fallen(base: HeldOut, last: HeldOut) -> tuple[str, Interval] | None:
    """The part that fell most, of those that surely did, and its change."""
    names = [
        name for name, scores in base.parts.items() if any(score is not None for score in scores)
    ]
    changes = {
        name: change(base.parts[name], last.parts[name], 1 - 0.05 / (2 * len(names)))
        for name in names
    }
    name = min(changes, key=lambda name: changes[name].mean, default=None)
    surely = name is not None and changes[name].high < 0 and changes[name].mean <= -RISE
    return (name, changes[name]) if name is not None and surely else None


def _together(looks: Sequence[HeldOut]) -> HeldOut:
    """The mean of `looks`, document by document, at the step of the last."""
    rewards_P = _means([one.rewards for one in looks])
    audits_P = _means([one.audits for one in looks])
    parts = {name: _means([one.parts[name] for one in looks]) for name in looks[0].parts}
    return replace(looks[-1], rewards=rewards_P, audits=audits_P, parts=parts)


def _rises(before_P: Scores, after_P: Scores) -> dict[int, float]:
    """After less before, of the documents that are known in both."""
    pairs = enumerate(zip(before_P, after_P, strict=True))
    return {i: b - a for i, (a, b) in pairs if a is not None and b is not None}


def _means(scores_LP: Sequence[Scores]) -> Scores:
    """Document by document; None where one is not known."""
    found: list[float | None] = []
    for scores_L in zip(*scores_LP, strict=True):
        known = [score for score in scores_L if score is not None]
        found.append(fmean(known) if len(known) == len(scores_L) else None)
    return tuple(found)
