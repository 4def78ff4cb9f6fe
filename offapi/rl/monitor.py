"""Decides what becomes of a GRPO run: which look is the best, which gates fail, what was learned.

Pure: what a step has shown goes in, the next `Trail` and the problems come out. Every checkpoint
holds the trail, so that a resumed run knows what the first one knew. Left out: measuring, which is
the recipe's, and writing, see `offapi.rl.run_log`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from offapi.rl import gates, heldout, reward_hacking
from offapi.rl.gates import Problem, Streaks
from offapi.rl.heldout import HeldOut
from offapi.rl.reward_hacking import Gamed
from offapi.rl.rollouts import Sampled
from offapi.stats.interval import Interval

NO_AUDIT = "Nothing audits this run: no gold, no check in `audit`. A gamed reward goes unnoticed."


@dataclass(frozen=True)
class Trail:
    """What a run has seen so far: steps done, streaks, looks at the held-out documents."""

    step: int = 0
    streaks: Streaks = Streaks()
    history: tuple[HeldOut, ...] = ()

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Trail:
        """Return the trail that a checkpoint's meta holds."""
        return msgspec.convert(meta, cls)


@dataclass(frozen=True)
class Figures:
    """What a step has shown; `seen` is its look at the held-out documents, where it was time."""

    sampled: Sampled
    metrics: Mapping[str, float]
    seen: HeldOut | None = None
    same_base: bool = True  # whether the base model's own logprobs are as they were


@dataclass(frozen=True)
class Decision:
    """What follows from a step: the next trail, and what is wrong.

    `broken` is enforced before the step is logged, `problems` after its checkpoint, and `gamed`
    last, with the samples that show it.
    """

    trail: Trail
    seen: HeldOut | None = None  # the look to keep
    best: bool = False  # whether that look is the best so far
    checkpoint: bool = False
    broken: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
    gamed: Gamed | None = None


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What the decisions over the `steps` steps of a run depend on."""

    steps: int
    eval_every: int  # steps
    checkpoint_every: int  # steps
    max_tokens: int  # of a completion
    checked: bool  # whether the task's checks make the reward, which is then 0 to 1

    def is_look(self, step: int) -> bool:
        """Return whether the held-out documents are looked at after so many steps."""
        return step % self.eval_every == 0 or step == self.steps

    def start(self, seen: HeldOut, differing: Sequence[str]) -> Decision:
        """Decide after the first look, before any step.

        `differing` are rows whose reward was another one when they were scored again.
        """
        broken: tuple[Problem, ...] = ()
        if differing:
            what = (
                f"the same answers to {differing[0]!r} got other rewards when they were scored"
                " again."
            )
            step = "Take chance and clocks out of the checks."
            broken = (Problem("deterministic", what, step),)
        return Decision(Trail(history=(seen,)), seen, best=True, broken=broken)

    def resume(self, trail: Trail) -> Decision:
        """Decide again whether the reward is being gamed: the alarm outlives a kill."""
        return Decision(trail, gamed=find_gamed(trail))

    def after(self, trail: Trail, figures: Figures) -> Decision:
        """Decide what follows from one more step."""
        step, sampled, seen = trail.step + 1, figures.sampled, figures.seen
        trail = replace(trail, step=step, streaks=trail.streaks.after(figures.metrics))
        if seen is not None:
            trail = replace(trail, history=(*trail.history, seen))
        broken: tuple[Problem, ...] = ()
        if not figures.same_base:
            what = "the base model's own logprobs have changed since the run began."
            cure = "This is a fault of the backend; run `offapi models verify`."
            broken = (Problem("base", what, cure),)
        checks = self.checked and not sampled.recorded
        problems = gates.of_step(trail.streaks, sampled.groups, self.max_tokens, checks=checks)
        return Decision(
            trail,
            seen,
            best=seen is not None and heldout.best(trail.history) is seen,
            checkpoint=step % self.checkpoint_every == 0 or step == self.steps,
            broken=broken,
            problems=tuple(problems),
            gamed=find_gamed(trail),
        )


def find_gamed(trail: Trail) -> Gamed | None:
    """Return what shows that the reward is being gamed, where the last step had a look."""
    looked = trail.history[-1].step == trail.step
    return reward_hacking.gamed(trail.history) if looked else None


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What may be said at the end of a run: the best look held against the first."""

    best: HeldOut
    n: int  # held-out documents with a reward in both
    before: float  # mean reward
    after: float
    reward: Interval  # its change
    audit: Interval | None  # its change; None where nothing audits
    audit_before: float | None
    p: float  # one-sided, with the best look chosen

    @property
    def surely(self) -> bool:
        """Whether the reward rose by more than luck alone would have it."""
        return self.reward.low > 0 and self.p <= heldout.SURE

    def as_dict(self) -> dict[str, Any]:
        """Return what learned.json holds."""
        return {
            "best_step": self.best.step,
            "reward": asdict(self.reward),
            "audit": self.audit and asdict(self.audit),
            "p": self.p,
            "learned": self.surely,
            "n": self.n,
        }

    def lines(self) -> list[str]:
        """Return what people are told."""
        changed = f"reward {self.before:.3f} to {self.after:.3f} ({self.reward.points()} points)"
        if self.audit is not None:
            changed += f", audit {self.audit_before:.3f} to {self.best.audit:.3f}"
            changed += f" ({self.audit.points()})"
        return [
            f"Best at step {self.best.step}, on {self.n} held-out documents: {changed}.",
            "It was chosen on these documents: score it on others before you rely on the figure.",
        ]

    def problems(self) -> list[Problem]:
        """Return the gate that fails where nothing can be said to have been learned."""
        if self.surely:
            return []
        what = (
            "on the held-out documents the reward did not surely rise (one-sided, with the best"
            f" look chosen, p = {self.p:.2g}; sure is {heldout.SURE} or less): nothing can be said"
            " to have been learned."
        )
        step = "Train longer, raise lr, or hold out more documents (`val`)."
        return [Problem("learned", what, step)]


def find_learned(history: Sequence[HeldOut]) -> Learned:
    """Return what may be said of a run with these looks."""
    first, best = history[0], heldout.best(history)
    before, after = heldout.means(first.rewards, best.rewards)
    return Learned(
        best=best,
        n=len(heldout.both(first.rewards, best.rewards)),
        before=before,
        after=after,
        reward=heldout.change(first.rewards, best.rewards),
        audit=None if best.audit is None else heldout.change(first.audits, best.audits),
        audit_before=first.audit,
        p=heldout.chance(history, best),
    )
