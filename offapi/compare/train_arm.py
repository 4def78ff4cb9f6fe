"""What became of an arm: trained by its recipe, once,
with the time it took and the rows it learned from.

A gate of grpo that fails is a result like another. Left out: scoring on the test set.
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
from offapi.training.recipe_run import hold_run, load_recipe

DONE = "arm.json"


@dataclass(frozen=True)
class Ceiling:
    """How good the answers are that a road learns from:
    all fields right, over `n` of them that gold tells of.
    """

    right: Interval
    n: int


@dataclass(frozen=True)
class ArmOutcome:
    """A finished arm. `adapter`: the folder in the run, None where the recipe left none."""

    rows: int  # learned from; of grpo: documents that were sampled for
    of: int  # that could have been
    seconds: float  # of the machine, that the result is made of
    adapter: str | None
    gate: str | None = None  # what failed
    usage: Usage | None = None  # the teacher's tokens, None where nobody counted
    ceiling: Ceiling | None = None


def read_outcome(arm: Arm) -> ArmOutcome | None:
    """The outcome of an arm that is done; None where it is not."""
    path = arm.path / DONE
    return msgspec.json.decode(path.read_bytes(), type=ArmOutcome) if path.is_file() else None


def reach_outcome(arm: Arm, task: Task, backend: str, out: Progress) -> ArmOutcome:
    """Train the arm, or go on with it, or take what is there.

    Raises what its recipe raises, gates aside.
    """
    done = read_outcome(arm)
    if done is not None:
        out.say(f"{arm.recipe}: done before, in {arm.path}.")
        return done
    recipe = load_recipe(arm.recipe)
    inputs = recipe.prepare(arm.config, out)
    resume = arm.path.exists()
    out.say(f"{arm.recipe}: {'going on with' if resume else 'in'} {arm.path}.")
    run = (
        Timed.open(arm.path)
        if resume
        else Timed.create(arm.path.parent, arm.path.name, arm.manifest)
    )
    job = Job(
        config=arm.config,
        inputs=inputs,
        backend_name=backend,
        folder=run,
        progress=out,
        resume=resume,
    )
    gate = None
    with hold_run(run, arm.manifest, resume=resume):
        run.begin()
        try:
            recipe.run(job)
        except GateFailed as error:
            gate = error.what
            out.say(f"{arm.recipe}: {gate} That is its result; remove {arm.path} to try it again.")
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
        found = graded["ceiling"] and Ceiling(Interval(**graded["ceiling"]), graded["known"])
        return ArmOutcome(graded["kept"], graded["rows"], seconds, adapter, gate, ceiling=found)
    answers = [one for one in _labels(arm, run.path) if one.status == "ok"]
    used = sum((one.usage for one in answers), Usage())
    usage = used if used != Usage() else None
    return ArmOutcome(
        graded["kept"], graded["rows"], seconds, adapter, gate, usage, _teacher(arm, task, answers)
    )


def _labels(arm: Arm, folder: Path) -> list[Label]:
    """What the teacher said of the arm's documents."""
    ids = {row.id for row in documents.read(arm.config.data)}
    path = arm.config.labels or folder / "labels.jsonl"
    return [
        one
        for one in labels_file.settle_labels(labels_file.read_labels(path).labels).values()
        if one.id in ids
    ]


def _teacher(arm: Arm, task: Task, answers: list[Label]) -> Ceiling | None:
    """The teacher's own accuracy, over the documents whose gold is known."""
    said = {one.id: one.output for one in answers}
    known = [
        row for row in documents.read(arm.config.data) if row.gold is not None and row.id in said
    ]
    if not known:
        return None
    report = Report.of([make_prediction(task, row, said[row.id]) for row in known])
    return Ceiling(report.all_fields, report.n)
