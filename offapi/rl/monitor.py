"""Decide about a GRPO run: which look is the best, which gates fail, what was learned.

Pure functions: a step's figures go in, the next `Trail` and the problems come out. Every checkpoint
stores the trail, so that a resumed run decides as the first one would have. A "look" is one
evaluation on the held-out documents. Left out: measuring, which is the recipe's, and writing, see
`offapi.rl.run_log`.
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
from offapi.text.display import plural

NO_AUDIT = (
    "Nothing audits this run: there is no gold and no check in `audit`. A gamed reward would go"
    " unnoticed."
)


@dataclass(frozen=True)
class Trail:
    """What has happened in a run so far: steps done, streaks, looks at held-out documents."""

    step: int = 0
    streaks: Streaks = Streaks()
    history: tuple[HeldOut, ...] = ()

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Trail:
        """Return the trail that a checkpoint's meta holds."""
        return msgspec.convert(meta, cls)


@dataclass(frozen=True)
class Figures:
    """The figures of one step; `seen` is its look, where one was due."""

    sampled: Sampled
    metrics: Mapping[str, float]
    seen: HeldOut | None = None
    same_base: bool = True  # whether the base model's own logprobs are unchanged


@dataclass(frozen=True)
class Decision:
    """What follows from a step: the next trail, and what is wrong.

    `broken` is enforced before the step is logged, `problems` after its checkpoint, and `gamed`
    last, with samples that show it.
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
    """The settings of a run that the decisions over its `steps` steps depend on."""

    steps: int
    eval_every: int  # steps
    checkpoint_every: int  # steps
    max_tokens: int  # of a completion
    checked: bool  # whether the task's checks make the reward, from 0 to 1

    def is_look(self, step: int) -> bool:
        """Return whether the held-out documents are scored after this many steps."""
        return step % self.eval_every == 0 or step == self.steps

    def start(self, seen: HeldOut, differing: Sequence[str]) -> Decision:
        """Decide after the first look, before any step.

        `differing` are rows that got a different reward when they were scored again.
        """
        broken: tuple[Problem, ...] = ()
        if differing:
            what = (
                f"the same answers to {differing[0]!r} got different rewards when they were scored"
                " again."
            )
            step = "Make the checks deterministic: remove random numbers and clocks from them."
            broken = (Problem("deterministic", what, step),)
        return Decision(Trail(history=(seen,)), seen, best=True, broken=broken)

    def resume(self, trail: Trail) -> Decision:
        """Decide again whether the reward is being gamed: the alarm outlives a kill."""
        return Decision(trail, gamed=find_gamed(trail))

    def after(self, trail: Trail, figures: Figures) -> Decision:
        """Decide what follows from one more step."""
        steps, sampled, seen = trail.step + 1, figures.sampled, figures.seen
        trail = replace(trail, step=steps, streaks=trail.streaks.after(figures.metrics))
        if seen is not None:
            trail = replace(trail, history=(*trail.history, seen))
        broken: tuple[Problem, ...] = ()
        if not figures.same_base:
            what = "the base model's own logprobs have changed since the run began."
            step = "Run `offapi models verify`. If the files are intact, the backend is at fault."
            broken = (Problem("base", what, step),)
        checks = self.checked and not sampled.recorded
        problems = gates.of_step(trail.streaks, sampled.groups, self.max_tokens, checks=checks)
        return Decision(
            trail,
            seen,
            best=seen is not None and heldout.best(trail.history) is seen,
            checkpoint=steps % self.checkpoint_every == 0 or steps == self.steps,
            broken=broken,
            problems=tuple(problems),
            gamed=find_gamed(trail),
        )


def find_gamed(trail: Trail) -> Gamed | None:
    """Return the evidence that the reward is being gamed, where the last step had a look."""
    looked = trail.history[-1].step == trail.step
    return reward_hacking.gamed(trail.history) if looked else None


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What can be said at the end of a run: the best look compared with the first."""

    best: HeldOut
    n: int  # held-out documents with a reward in both looks
    before: float  # mean reward
    after: float
    reward: Interval  # its change
    audit: Interval | None  # its change; None where nothing audits
    audit_before: float | None
    p: float  # one-sided, with the choice of the best look accounted for

    @property
    def surely(self) -> bool:
        """Whether the reward rose significantly."""
        return self.reward.low > 0 and self.p <= heldout.SURE

    def as_dict(self) -> dict[str, Any]:
        """Return what learned.json stores."""
        return {
            "best_step": self.best.step,
            "reward": asdict(self.reward),
            "audit": self.audit and asdict(self.audit),
            "p": self.p,
            "learned": self.surely,
            "n": self.n,
        }

    def lines(self) -> list[str]:
        """Return the sentences for people."""
        changed = f"reward {self.before:.3f} to {self.after:.3f} ({self.reward.points()} points)"
        if self.audit is not None:
            changed += f", audit {self.audit_before:.3f} to {self.best.audit:.3f}"
            changed += f" ({self.audit.points()})"
        return [
            f"Best at step {self.best.step}, on {plural(self.n, 'held-out document')}: {changed}.",
            "It was chosen on these documents. Score it on others before you rely on the figures.",
        ]

    def problems(self) -> list[Problem]:
        """Return the gate that fails where the improvement is not significant."""
        if self.surely:
            return []
        what = (
            "no significant improvement on the held-out documents: the reward's rise at the best"
            f" evaluation may be chance (one-sided p = {self.p:.2g}, corrected for choosing the"
            f" best; significant is {heldout.SURE} or less, with a 95% interval above 0)."
        )
        step = (
            "The adapter is written, but do not rely on it. Train longer, raise lr, or hold out"
            " more documents (`val`)."
        )
        return [Problem("learned", what, step)]


def find_learned(history: Sequence[HeldOut]) -> Learned:
    """Return what can be said of a run with these looks."""
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
