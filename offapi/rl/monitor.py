"""Watches a GRPO run: held-out looks, the best adapter,
gates, checkpoints, and what may be said at the end.

What it has seen is a `Trail`, which every checkpoint holds, so that a resumed run knows what
the first one knew. Left out: the training itself, which is the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import orjson

from offapi import adapter
from offapi.backend import Backend, LoraSpec
from offapi.episodes import Episode, Segment
from offapi.errors import OffapiError
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.test_set import count_scoring
from offapi.progress import Progress
from offapi.rl import gates, heldout, reward_hacking, rollout_files
from offapi.rl.gates import Gate, Problem, Streaks
from offapi.rl.heldout import HeldOut
from offapi.rl.rollouts import Prompt, Sampled, Sampler
from offapi.rl.timings import TIMINGS, Clock
from offapi.task import Task
from offapi.training import train_state
from offapi.training.run import Run

BEST, HACKING, LEARNED = "best", "hacking.json", "learned.json"
BEST_WEIGHTS = "best.safetensors"  # in a checkpoint: the best adapter until then


@dataclass(frozen=True)
class Trail:
    """What a run has seen so far: steps done, streaks, looks at the held-out documents."""

    step: int = 0
    streaks: Streaks = Streaks()
    history: tuple[HeldOut, ...] = ()

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Trail:
        """From a checkpoint's meta."""
        return msgspec.convert(meta, cls)


class Watched(Protocol):
    """What watching asks of a recipe's keys."""

    @property
    def val(self) -> Path | None: ...

    @property
    def model(self) -> str: ...

    @property
    def eval_every(self) -> int: ...

    @property
    def checkpoint_every(self) -> int: ...

    @property
    def allow(self) -> tuple[Gate, ...]: ...

    @property
    def shape(self) -> LoraSpec: ...


class Watch:
    """Over the `steps` steps of a run; `prompts` are the held-out documents."""

    def __init__(
        self,
        config: Watched,
        task: Task,
        steps: int,
        sampler: Sampler,
        prompts: Sequence[Prompt],
        folder: Run,
        out: Progress,
        clock: Clock,
    ) -> None:
        self.config, self.task, self.steps, self.sampler, self.prompts = (
            config,
            task,
            steps,
            sampler,
            prompts,
        )
        self.folder, self.out, self.clock = folder, out, clock
        self.backend: Backend = sampler.backend
        self._base = probe(self.backend, prompts[0])

    def start(self) -> Trail:
        """The first look, before any step; and is the reward the same when asked twice?"""
        trail = self._look(Trail())
        if trail.history[0].audit is None:
            self.out.say(
                "Nothing audits this run: no gold, no check in `audit`. A gamed reward goes"
                " unnoticed."
            )
        first = self.sampler.groups(self.prompts[:1], 0)[0]
        asked = [self.sampler.asked(first.prompt, one.text) for one in first.rollouts]
        differ = self.sampler.rewards.not_deterministic(
            asked, [one.judged for one in first.rollouts]
        )
        if differ:
            what = (
                f"the same answers to {differ[0]!r} got other rewards when they were scored again."
            )
            self.enforce(
                [Problem("deterministic", what, "Take chance and clocks out of the checks.")]
            )
        self.folder.log(0, trail.history[-1].metrics())
        return trail

    def resume(self) -> Trail:
        """Take the last checkpoint over, with its best
        adapter and its alarm; without one, start.
        """
        checkpoint = self.folder.latest()
        if checkpoint is None:
            return self.start()
        self.backend.restore(train_state.read(checkpoint.path))
        best = {adapter.CONFIG: adapter.CONFIG, adapter.WEIGHTS: BEST_WEIGHTS}
        self.folder.write_folder(
            BEST, {name: (checkpoint.path / kept).read_bytes() for name, kept in best.items()}
        )
        self.out.say(checkpoint.resumed(self.steps))
        trail = Trail.of(checkpoint.meta)
        self._alarm(trail)
        return trail

    def after(self, trail: Trail, sampled: Sampled, metrics: Mapping[str, float]) -> Trail:
        """One more step is done: gates, a look when it
        is time, metrics, a checkpoint when it is time.
        """
        trail = replace(trail, step=trail.step + 1, streaks=trail.streaks.after(metrics))
        if not sampled.recorded:
            rollouts = rollout_files.encode(sampled.groups, self.task, trail.step)
            (self.folder.path / rollout_files.FOLDER).mkdir(mode=0o700, exist_ok=True)
            self.folder.write(f"{rollout_files.FOLDER}/{trail.step:06d}.jsonl", rollouts)
        logged = dict(metrics)
        if trail.step % self.config.eval_every == 0 or trail.step == self.steps:
            with self.clock.phase("heldout"):
                trail = self._look(trail)
            logged |= trail.history[-1].metrics()
            if probe(self.backend, self.prompts[0]) != self._base:
                what = "the base model's own logprobs have changed since the run began."
                self.enforce(
                    [
                        Problem(
                            "base",
                            what,
                            "This is a fault of the backend; run `offapi models verify`.",
                        )
                    ]
                )
        self.folder.log(trail.step, logged)
        self.folder.log(trail.step, self.clock.take(), TIMINGS)
        if trail.step % self.config.checkpoint_every == 0 or trail.step == self.steps:
            files = train_state.encode(self.backend.state(), self.config.shape, self.config.model)
            best = (self.folder.path / BEST / adapter.WEIGHTS).read_bytes()
            self.folder.checkpoint(trail.step, {**files, BEST_WEIGHTS: best}, asdict(trail))
        checks, most = (
            self.task.reward is None and not sampled.recorded,
            self.sampler.sampling.max_tokens,
        )
        self.enforce(gates.of_step(trail.streaks, sampled.groups, most, checks=checks))
        self._alarm(trail)
        return trail

    def enforce(self, problems: Sequence[Problem]) -> None:
        """Raise GateFailed for a problem that is not allowed, and say where the best adapter is."""
        try:
            gates.enforce(problems, self.config.allow, self.out)
        except OffapiError:
            if (self.folder.path / BEST).is_dir():
                self.out.say(f"The best adapter so far is {self.folder.path / BEST}.")
            raise

    def finish(self, trail: Trail) -> Report | None:
        """Put the best look's adapter in place; its report where all held-out documents have gold.

        GateFailed, with everything written, where nothing can be said to have been learned.
        """
        best, first = heldout.best(trail.history), trail.history[0]
        shape, arrays = adapter.read(self.folder.path / BEST)
        self.folder.write_folder("adapter", adapter.encode(arrays, shape, self.config.model))
        report = None
        if all(prompt.row.gold is not None for prompt in self.prompts):
            report = score_predictions(
                self.task, [prompt.row for prompt in self.prompts], best.texts
            )
            self.folder.write("predictions.jsonl", report.jsonl())
            self.folder.write("report.json", orjson.dumps(report.as_dict()))
        reward = heldout.change(first.rewards, best.rewards)
        audit = None if best.audit is None else heldout.change(first.audits, best.audits)
        p = heldout.chance(trail.history, best)
        learned = reward.low > 0 and p <= heldout.SURE
        told = {
            "best_step": best.step,
            "reward": asdict(reward),
            "audit": audit and asdict(audit),
            "p": p,
        }
        n = len(heldout.both(first.rewards, best.rewards))
        self.folder.write(LEARNED, orjson.dumps({**told, "learned": learned, "n": n}))
        was, became = heldout.means(first.rewards, best.rewards)
        changed = f"reward {was:.3f} to {became:.3f} ({reward.points()} points)"
        if audit is not None:
            changed += f", audit {first.audit:.3f} to {best.audit:.3f} ({audit.points()})"
        self.out.say(f"Best at step {best.step}, on {n} held-out documents: {changed}.")
        self.out.say(
            "It was chosen on these documents: score it on others before you rely on the figure."
        )
        if not learned:
            what = (
                "on the held-out documents the reward did not surely rise (one-sided, with the best"
                " look chosen, "
            )
            what += (
                f"p = {p:.2g}; sure is {heldout.SURE} or less): nothing can be said to have been"
                " learned."
            )
            self.enforce(
                [
                    Problem(
                        "learned",
                        what,
                        "Train longer, raise lr, or hold out more documents (`val`).",
                    )
                ]
            )
        return report

    def _look(self, trail: Trail) -> Trail:
        seen = heldout.look(self.sampler, self.prompts, trail.step)
        self.folder.write(f"heldout-{trail.step:06d}.jsonl", seen.rows(self.prompts))
        history = (*trail.history, seen)
        if heldout.best(history) is seen:
            arrays = self.backend.state().adapter
            self.folder.write_folder(
                BEST, adapter.encode(arrays, self.config.shape, self.config.model)
            )
        if self.config.val is not None:
            count_scoring(self.folder, self.config.val, len(self.prompts))
        return replace(trail, history=history)

    def _alarm(self, trail: Trail) -> None:
        """GateFailed, with the samples that show it, where
        the held-out reward rises and the audit does not.
        """
        last = trail.history[-1]
        found = reward_hacking.gamed(trail.history) if last.step == trail.step else None
        if found is None:
            return
        since, shown = found.base.step, reward_hacking.examples(found, last, self.prompts)
        told = {
            "step": last.step,
            "since": since,
            "part": found.part,
            "rose": found.rose,
            "samples": shown,
        }
        self.folder.write(HACKING, orjson.dumps(told))
        for one in shown:
            self.out.say(f"  {one['id']}: {one['before']!r} -> {one['after']!r}")
            changes = (
                f"{name} {one[name][0]:.2f} -> {one[name][1]:.2f}" for name in ("reward", "audit")
            )
            self.out.say(f"    {', '.join(changes)}")
        verdict = "is being gamed" if found.rose else "does not stand for what is meant"
        what = (
            f"the reward {verdict}: since step {since} it changed by {found.reward.points()} points"
            f" on held-out documents, while {found.meaning} changed by {found.audit.points()}."
        )
        self.enforce(
            [
                Problem(
                    "hacking", what, f"See {HACKING} in the run's folder, and reward what you mean."
                )
            ]
        )


def probe(backend: Backend, prompt: Prompt) -> bytes:
    """The reference's logprobs of a prompt: the same bytes as long as the base is the same."""
    tokens = prompt.tokens[:64]
    episode = Episode("probe", (Segment(tokens[:1], False), Segment(tokens[1:], True)))
    return np.ascontiguousarray(backend.score([episode], by="reference")[0]).tobytes()
