"""Write the files of a GRPO run, in an order that makes it resumable after a kill at any moment.

    runs/NAME/rollouts/000001.jsonl  heldout-000000.jsonl  best/  hacking.json  learned.json

The folder also holds the metrics, timings and checkpoints of every run. Left out: what is written
and which problems there are, which `offapi.rl.monitor` decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import orjson

from offapi.backend import Backend
from offapi.chat.chat import Chat
from offapi.data.documents import Document
from offapi.errors import OffapiError
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.predict import predict
from offapi.evaluation.test_set import count_scoring
from offapi.model_spec import LoraSpec, ModelSpec
from offapi.models.store import Model
from offapi.optimizer import TrainState
from offapi.rl import gates, reward_hacking, rollout_files
from offapi.rl.gates import Gate, Problem
from offapi.rl.heldout import HeldOut
from offapi.rl.monitor import NO_AUDIT, Decision, Figures, Learned, Trail
from offapi.rl.reward_hacking import Gamed
from offapi.rl.rollouts import Prompt
from offapi.rl.timings import TIMINGS
from offapi.task import Task
from offapi.training import train_state
from offapi.training.job import Job
from offapi.training.trained import Trained

BEST, HACKING, LEARNED = "best", "hacking.json", "learned.json"
BEST_WEIGHTS = "best.safetensors"  # in a checkpoint: the best adapter so far


class LoggedConfig(Protocol):
    """The keys of a recipe that the log needs."""

    @property
    def val(self) -> Path | None: ...

    @property
    def allow(self) -> tuple[Gate, ...]: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def shape(self) -> LoraSpec | None: ...

    def spec(self, model: Model) -> ModelSpec: ...


class LoggedInputs(Protocol):
    """The inputs of a recipe that the log needs."""

    @property
    def task(self) -> Task: ...

    @property
    def model(self) -> Model: ...

    @property
    def chat(self) -> Chat: ...

    @property
    def heldout(self) -> tuple[Prompt, ...]: ...


@dataclass(frozen=True)
class RunLog:
    """The files of a run, and its messages to people."""

    job: Job[LoggedConfig, LoggedInputs]
    backend: Backend

    @cached_property
    def trained(self) -> Trained:
        """What the run trains: an adapter, or every weight."""
        config, model = self.job.config, self.job.inputs.model
        return Trained.of(config.shape, model, config.spec(model).quantize)

    def write_start(self, decision: Decision) -> None:
        """Write the first look, or raise GateFailed."""
        self.trained.check(self.backend)
        seen = decision.trail.history[0]
        self._write_look(seen, best=decision.best)
        if seen.audit is None:
            self.job.progress.say(NO_AUDIT)
        self.enforce(decision.broken)
        self.job.folder.log(0, seen.metrics())

    def restore(self, steps: int) -> Trail | None:
        """Load the last checkpoint with its best adapter, or return None where there is none."""
        folder = self.job.folder
        checkpoint = folder.latest()
        if checkpoint is None:
            return None
        self.backend.restore(train_state.read(checkpoint.path))
        kept = {name: name for name in self.trained.files} | {self.trained.weights: BEST_WEIGHTS}
        best = {name: (checkpoint.path / held).read_bytes() for name, held in kept.items()}
        folder.write_folder(BEST, best)
        self.job.progress.say(checkpoint.resumed(steps))
        return Trail.of(checkpoint.meta)

    def write_step(
        self, decision: Decision, figures: Figures, timings: Mapping[str, float]
    ) -> None:
        """Write one step: rollouts, look, metrics, checkpoint; then raise GateFailed for a problem.

        `decision.broken` is raised before the step is logged, so that a resumed run meets it again.
        """
        folder, step, seen = self.job.folder, decision.trail.step, decision.seen
        if not figures.sampled.recorded:
            rollouts = rollout_files.encode(figures.sampled.groups, self.job.inputs.task, step)
            (folder.path / rollout_files.FOLDER).mkdir(mode=0o700, exist_ok=True)
            folder.write(f"{rollout_files.FOLDER}/{step:06d}.jsonl", rollouts)
        if seen is not None:
            self._write_look(seen, best=decision.best)
        self.enforce(decision.broken)
        look_metrics = seen.metrics() if seen else {}
        folder.log(step, {**figures.metrics, **look_metrics})
        folder.log(step, timings, TIMINGS)
        if decision.checkpoint:
            self._write_checkpoint(decision.trail)
        self.enforce(decision.problems)
        self.raise_alarm(decision)

    def raise_alarm(self, decision: Decision) -> None:
        """Raise GateFailed, with the samples that show it, where the reward is being gamed."""
        gamed = decision.gamed
        if gamed is None:
            return
        self._write_samples(gamed, decision.trail.history[-1])
        step = (
            f"Read the examples in {HACKING} in the run's folder, then change the checks to reward"
            " what you mean."
        )
        self.enforce([Problem("hacking", gamed.sentence, step)])

    def write_end(self, learned: Learned) -> Report | None:
        """Write the best look's adapter; return its report where all documents have gold.

        Raises GateFailed, with everything written, where the improvement is not significant.
        """
        folder, inputs = self.job.folder, self.job.inputs
        arrays = self.trained.read(folder.path / BEST)
        self.backend.restore(TrainState(arrays))
        self.trained.write_result(folder, arrays, self.backend, self.job.config.spec(inputs.model))
        report = None
        rows = [prompt.row for prompt in inputs.heldout]
        if all(row.gold is not None for row in rows):
            report = self._report(rows, learned)
            folder.write("predictions.jsonl", report.jsonl())
            folder.write("report.json", orjson.dumps(report.as_dict()))
        folder.write(LEARNED, orjson.dumps(learned.as_dict()))
        for line in learned.lines():
            self.job.progress.say(line)
        self.enforce(learned.problems())
        return report

    def _report(self, rows: Sequence[Document], learned: Learned) -> Report:
        """Score the best look's answers; an agent's episodes are run again, for checks to see."""
        inputs = self.job.inputs
        if not inputs.task.is_agent:
            return score_predictions(inputs.task, rows, learned.best.texts)
        limit, progress = self.job.config.max_tokens, self.job.progress
        found = predict(self.backend, inputs.chat, inputs.task, rows, progress, max_tokens=limit)
        return score_predictions(inputs.task, rows, found.outputs, found.episodes)

    def enforce(self, problems: Sequence[Problem]) -> None:
        """Raise GateFailed for a problem that is not allowed, and say where the best adapter is."""
        try:
            gates.enforce(problems, self.job.config.allow, self.job.progress)
        except OffapiError:
            best = self.job.folder.path / BEST
            if best.is_dir():
                self.job.progress.say(f"The best adapter so far is in {best}.")
            raise

    def _write_look(self, seen: HeldOut, *, best: bool) -> None:
        folder, config, prompts = self.job.folder, self.job.config, self.job.inputs.heldout
        folder.write(f"heldout-{seen.step:06d}.jsonl", seen.rows(prompts))
        if best:
            arrays = self.backend.state().adapter
            folder.write_folder(BEST, self.trained.encode(arrays))
        if config.val is not None:
            count_scoring(folder, config.val, len(prompts))

    def _write_checkpoint(self, trail: Trail) -> None:
        folder, trained = self.job.folder, self.trained
        files = train_state.encode(self.backend.state(), trained.shape, trained.base)
        best = (folder.path / BEST / trained.weights).read_bytes()
        folder.checkpoint(trail.step, {**files, BEST_WEIGHTS: best}, asdict(trail))

    def _write_samples(self, gamed: Gamed, last: HeldOut) -> None:
        """Write and report documents whose reward rose while their audit did not."""
        samples = reward_hacking.examples(gamed, last, self.job.inputs.heldout)
        record = {
            "step": last.step,
            "since": gamed.base.step,
            "part": gamed.part,
            "rose": gamed.rose,
            "samples": samples,
        }
        self.job.folder.write(HACKING, orjson.dumps(record))
        for sample in samples:
            self.job.progress.say(f"  {sample['id']}: {sample['before']!r} -> {sample['after']!r}")
            (reward, rewarded), (audit, audited) = sample["reward"], sample["audit"]
            self.job.progress.say(
                f"    reward {reward:.2f} -> {rewarded:.2f}, audit {audit:.2f} -> {audited:.2f}"
            )
