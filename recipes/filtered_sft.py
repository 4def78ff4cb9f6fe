"""Filtered SFT: grade what an agent already did, keep
the best, learn it; beside it, as many random traces.

The second student tells whether grading helped: it learns from the same number of traces,
drawn without a look at their grades. Left out: rating traces by anything but the task's checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import orjson

from offapi.chat.chat import Chat, Thinking
from offapi.data import traces
from offapi.data.rows import read_rows, row_text
from offapi.data.traces import Trace
from offapi.episodes import Episode
from offapi.errors import ConfigError, DataError
from offapi.evaluation.accuracy import Report
from offapi.evaluation.compare import compare_answers
from offapi.grading.keep import Keep, require_groups
from offapi.grading.select import choose
from offapi.models.store import get
from offapi.progress import Progress
from offapi.randomness import order
from offapi.task import Grade, Task, load_task
from offapi.training.job import Job
from offapi.training.recipe_run import hold_run
from offapi.training.run import Run

from .training import (
    StudentInputs,
    Training,
    fit_length,
    read_val,
    trace_episode,
    train_student,
)

CONTROL = "control"  # the other student's run, inside the run


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Keys of `recipe = "filtered_sft"`."""

    recipe: Literal["filtered_sft"] = "filtered_sft"
    traces: Path  # chats that end with the agent's answer, or documents with "recorded_label"
    keep: Keep = Keep()
    prompt: Literal["task", "trace"] = (
        "task"  # the question as the task words it, or as the trace has it
    )
    thinking: Thinking = "drop"
    control: bool = True  # train the second student
    name: str = "filtered-sft"

    def reads(self) -> dict[str, Path]:
        """The files the result depends on."""
        return {"task": self.task, "traces": self.traces, **({"val": self.val} if self.val else {})}


@dataclass(frozen=True, kw_only=True)
class Inputs(StudentInputs):
    """Everything the recipe reads, graded and chosen before anything is written."""

    kept: tuple[Episode, ...]
    random: tuple[Episode, ...]  # as many, whatever their grades
    report: bytes  # grading.json


def prepare(config: Config, progress: Progress) -> Inputs:
    """Read, grade and choose; say what the grades are worth."""
    task, model = load_task(config.task), get(config.model)
    chat, val = Chat.load(model.path), read_val(config, task)
    found = read_traces(config.traces, task)
    require_groups(config.keep, (row.group for row in found), config.traces)
    rows = [(row, task.grade_trace(row)) for row in found]
    evaluation = [(row.id, row_text(row)) for row in val]
    chosen = choose(rows, task, config.keep, config.seed, evaluation=evaluation)
    for line in chosen.report.lines():
        progress.say(line)
    if not chosen.kept:
        step = "See `offapi grade` for the reasons; lower keep.threshold, or mend the checks."
        raise DataError(
            f"none of {len(rows)} traces is kept.", where=str(config.traces), next_step=step
        )
    pool = order(config.seed, 0, len(chosen.eligible))
    drawn = sorted(chosen.eligible[i] for i in pool[: len(chosen.kept)])
    kept, random = ([rows[i] for i in which] for which in (chosen.kept, drawn))
    return Inputs(
        task=task,
        model=model,
        chat=chat,
        val=val,
        kept=episodes(config, task, chat, kept, progress),
        random=episodes(config, task, chat, random, progress) if config.control else (),
        report=orjson.dumps(chosen.report.as_dict(), option=orjson.OPT_SERIALIZE_NUMPY),
    )


def run(job: Job[Config, Inputs]) -> Report | None:
    """Train on what was kept, then on as many random
    traces; the kept ones' report, both compared.
    """
    job.folder.write("grading.json", job.inputs.report)
    report = train_student(job, job.inputs.kept)
    other = train_control(job) if job.config.control else None
    if report is not None and other is not None:
        compared = compare_answers(
            report.predictions, other.predictions, names=("graded", "ungraded")
        )
        found = orjson.dumps(compared.as_dict(), option=orjson.OPT_SERIALIZE_NUMPY)
        job.folder.write("comparison.json", found)
        for line in compared.lines():
            job.progress.say(line)
    return report


def train_control(job: Job[Config, Inputs]) -> Report | None:
    """Train the other student, on traces drawn whatever their grades, in a run inside the run."""
    rows, manifest, parent = job.inputs.random, {"control": True}, job.folder.path
    job.progress.say(f"The control: {len(rows)} episodes of traces drawn whatever their grades.")
    resume = job.resume and (parent / CONTROL).exists()
    folder = Run.open(parent / CONTROL) if resume else Run.create(parent, CONTROL, manifest)
    with hold_run(folder, manifest, resume=resume):
        return train_student(replace(job, folder=folder, resume=resume), rows)


def read_traces(path: Path, task: Task) -> list[Trace]:
    """The traces in `path`; of documents, their
    recorded answers as answers to the task's question.
    """
    found: list[Trace] = []
    for row in read_rows(path):
        if isinstance(row, Trace):
            found.append(row)
        elif row.recorded_label is not None:
            messages = (*task.messages(row.text), said(task, row.recorded_label))
            found.append(Trace(row.id, messages, gold=row.gold))
    return found


def said(task: Task, answer: traces.Message) -> traces.Message:
    """`answer` as the assistant's message."""
    return {"role": "assistant", "content": task.answer_text(answer)}


def episodes(
    config: Config, task: Task, chat: Chat, rows: Sequence[tuple[Trace, Grade]], progress: Progress
) -> tuple[Episode, ...]:
    """What is learned of each trace: the assistant's turns alone."""
    made: list[Episode] = []
    for trace, grade in rows:
        if config.prompt == "trace":
            made += chat.episodes(trace.id, trace.messages, trace.tools, config.thinking)
            continue
        if not trace.single_shot:
            what = (
                f"row {trace.id!r} has tools or several turns, which the task's question alone"
                " cannot stand for."
            )
            raise ConfigError(what, where=str(config.traces), next_step='Set prompt = "trace".')
        made.append(trace_episode(chat, task, trace, grade))
    return fit_length(made, config, progress)
