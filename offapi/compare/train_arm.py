"""Train an arm once, with its recipe, and record its time and the rows it learned from.

A failed gate of grpo is a result like any other. Left out: scoring on the test set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson

from offapi.compare.arm import Arm
from offapi.compare.timed_run import Timed
from offapi.data import documents
from offapi.errors import GateFailed
from offapi.evaluation.accuracy import Report, make_prediction
from offapi.progress import Progress
from offapi.rl.run_log import BEST
from offapi.stats.interval import Interval
from offapi.task import Task
from offapi.teachers import labels_file
from offapi.teachers.labels_file import Label
from offapi.teachers.teacher import Usage
from offapi.training.job import Job
from offapi.training.prompt_settings import DAY, day_of, on_day
from offapi.training.recipe_run import hold_run, load_recipe
from offapi.training.run import Run

DONE = "arm.json"


@dataclass(frozen=True)
class Ceiling:
    """How good the answers are that an arm learns from, over the `n` that have gold."""

    right: Interval  # share with all fields right
    n: int


@dataclass(frozen=True)
class ArmOutcome:
    """A finished arm. `adapter` is a folder in the run; None if the recipe left none."""

    rows: int  # learned from; for grpo: documents that were sampled for
    of: int  # rows that there were
    seconds: float  # machine time behind the result
    adapter: str | None
    gate: str | None = None  # the gate that failed
    usage: Usage | None = None  # the teacher's tokens; None if they were not counted
    ceiling: Ceiling | None = None


def read_outcome(arm: Arm) -> ArmOutcome | None:
    """Return the outcome of a finished arm; None if it is not finished."""
    path = arm.path / DONE
    return msgspec.json.decode(path.read_bytes(), type=ArmOutcome) if path.is_file() else None


def reach_outcome(arm: Arm, task: Task, backend: str, progress: Progress) -> ArmOutcome:
    """Return the arm's outcome; train it, or resume its training, if necessary.

    Raise what its recipe raises, except for failed gates.
    """
    done = read_outcome(arm)
    if done is not None:
        progress.say(f"{arm.recipe}: already done, in {arm.path}.")
        return done
    recipe, resume = load_recipe(arm.recipe), arm.path.exists()
    day = day_of(Run.open(arm.path).manifest if resume else {})
    config = on_day(arm.config, day)
    inputs = recipe.prepare(config, progress)
    progress.say(f"{arm.recipe}: {'resuming' if resume else 'training in'} {arm.path}.")
    run = (
        Timed.open(arm.path)
        if resume
        else Timed.create(arm.path.parent, arm.path.name, {**arm.manifest, DAY: day})
    )
    job = Job(
        config=config,
        inputs=inputs,
        backend_name=backend,
        folder=run,
        progress=progress,
        resume=resume,
    )
    gate = None
    with hold_run(run, arm.manifest, resume=resume):
        run.begin()
        try:
            recipe.run(job)
        except GateFailed as error:
            gate = error.what
            progress.say(
                f"{arm.recipe}: {gate} This is its result; remove {arm.path} to try again."
            )
        outcome = _outcome(arm, inputs, task, run, gate)
        run.write(DONE, orjson.dumps(asdict(outcome)))
    return outcome


def _outcome(arm: Arm, inputs: Any, task: Task, run: Timed, gate: str | None) -> ArmOutcome:
    seconds = run.work.seconds
    adapter = next((name for name in ("adapter", BEST) if (run.path / name).is_dir()), None)
    if arm.recipe == "grpo":
        return ArmOutcome(len(inputs.prompts), len(inputs.prompts), seconds, adapter, gate)
    if arm.recipe == "sft":
        return ArmOutcome(len(inputs.episodes), len(inputs.episodes), seconds, adapter, gate)
    graded = orjson.loads((run.path / "grading.json").read_bytes())
    if arm.recipe == "filtered_sft":
        ceiling = graded["ceiling"] and Ceiling(Interval(**graded["ceiling"]), graded["known"])
        return ArmOutcome(graded["kept"], graded["rows"], seconds, adapter, gate, ceiling=ceiling)
    labels = [label for label in _labels(arm, run.path) if label.status == "ok"]
    used = sum((label.usage for label in labels), Usage())
    usage = used if used != Usage() else None
    return ArmOutcome(
        graded["kept"], graded["rows"], seconds, adapter, gate, usage, _teacher(arm, task, labels)
    )


def _labels(arm: Arm, folder: Path) -> list[Label]:
    """Return the teacher's labels for the arm's documents."""
    ids = {row.id for row in documents.read(arm.config.data)}
    path = arm.config.labels or folder / "labels.jsonl"
    labels = labels_file.settle_labels(labels_file.read_labels(path).labels)
    return [label for label in labels.values() if label.id in ids]


def _teacher(arm: Arm, task: Task, labels: list[Label]) -> Ceiling | None:
    """Measure the teacher's own accuracy, over the documents with gold."""
    outputs = {label.id: label.output for label in labels}
    known = [
        row for row in documents.read(arm.config.data) if row.gold is not None and row.id in outputs
    ]
    if not known:
        return None
    report = Report.of([make_prediction(task, row, outputs[row.id]) for row in known])
    return Ceiling(report.all_fields, report.n)
