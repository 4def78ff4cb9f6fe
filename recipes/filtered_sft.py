"""Filtered SFT: grade what an agent already did, and learn the best of it.

Filtered behaviour cloning, or one round of rejection sampling (RAFT, Dong et al., arXiv 2304.06767;
ReST, Gulcehre et al., arXiv 2308.08998) on logged traces. Each trace's answer is graded by the
task's checks, `keep` selects the best, and a student learns them as `sft` does. A second student,
the control, learns as many traces drawn at random, whatever their grades. Comparing the two shows
whether the grading helped.

Deviations from the papers:

- The traces come from another model, logged before; nothing is sampled, and there is one round.
- The task's checks grade the answers, not a learned reward model.
- By default a trace must pass every check (`keep`); RAFT keeps the best of each prompt.
- Near-duplicates are learned once, and traces near a document of `val` are dropped.
- The control is drawn from the traces that `keep` would accept at any grade.

Left out: grading traces by anything but the task's checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import orjson

from offapi.chat.chat import Chat
from offapi.chat.learned_turns import Thinking
from offapi.data.rows import read_rows, row_text
from offapi.data.traces import Message, Trace
from offapi.episodes import Episode
from offapi.errors import ConfigError, DataError
from offapi.evaluation.accuracy import Report
from offapi.evaluation.compare import compare_answers
from offapi.grading.keep import REFUSED, Keep, require_groups
from offapi.grading.other_fields import other_fields
from offapi.grading.select import choose
from offapi.models.store import get
from offapi.progress import Progress
from offapi.randomness import order
from offapi.task import Grade, Task, load_task
from offapi.text.display import plural
from offapi.text.thinking import strip_thinking
from offapi.training.job import Job
from offapi.training.recipe_run import hold_run
from offapi.training.run import Run

from .training import (
    StudentInputs,
    Training,
    all_scored,
    fit_length,
    leave_out_unlearnable,
    read_val,
    say_misfits,
    trace_episode,
    train_student,
)

CONTROL = "control"  # the second student's run, inside the run


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Keys of `recipe = "filtered_sft"`."""

    recipe: Literal["filtered_sft"] = "filtered_sft"
    traces: Path  # chats that end with the agent's answer, or documents with "recorded_label"
    escalated: bool = False  # learn a server's kept answers of another model too
    keep: Keep = Keep()
    # the question as the task words it, or as the trace has it
    prompt: Literal["task", "trace"] = "task"
    thinking: Thinking = "drop"
    control: bool = True  # train the second student
    name: str = "filtered-sft"

    def reads(self) -> dict[str, Path]:
        """Return the files that the result depends on."""
        paths = {"task": self.task, "traces": self.traces, "val": self.val}
        return {name: path for name, path in paths.items() if path}


@dataclass(frozen=True, kw_only=True)
class Inputs(StudentInputs):
    """Everything the recipe reads, graded and chosen before anything is written."""

    kept: tuple[Episode, ...]
    random: tuple[Episode, ...]  # of as many traces, whatever their grades
    report: bytes  # grading.json


def prepare(config: Config, progress: Progress) -> Inputs:
    """Read, grade and choose; report what the grades are worth."""
    task, model = load_task(config.task), get(config.model)
    val = read_val(config, task)
    logged = read_traces(config.traces, task)
    logged = leave_out_unlearnable(logged, config.traces, progress, escalated=config.escalated)
    require_groups(config.keep, (row.group for row in logged), config.traces)
    rows = [(row, task.grade_trace(row)) for row in logged]
    evaluation = [(row.id, row_text(row)) for row in val]
    chosen = choose(rows, task, config.keep, config.seed, evaluation=evaluation)
    if chosen.report.dropped.get(REFUSED) == len(rows):
        raise all_scored(config, config.traces)
    for line in chosen.report.lines():
        progress.say(line)
    if not chosen.kept:
        step = "Run `offapi grade` to see the reasons. Then fix the checks or lower keep.threshold."
        error = chosen.report.nothing_kept("traces", step)
        values = [grade.value for _, grade in rows if isinstance(grade.value, dict)]
        hint = other_fields(task, values) or error.next_step
        raise DataError(error.what, where=str(config.traces), next_step=hint)
    chat = Chat.load(model.path, config.template)
    pool = order(config.seed, 0, len(chosen.eligible))
    drawn = sorted(chosen.eligible[i] for i in pool[: len(chosen.kept)])
    kept = [rows[i] for i in chosen.kept]
    say_misfits(task, kept, progress)
    random = [rows[i] for i in drawn]
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
    """Train on the kept traces, then on as many random ones; return the kept ones' report."""
    job.folder.write("grading.json", job.inputs.report)
    report = train_student(job, job.inputs.kept)
    control = train_control(job) if job.config.control else None
    if report is not None and control is not None:
        comparison = compare_answers(
            report.predictions, control.predictions, names=("graded", "ungraded")
        )
        content = orjson.dumps(comparison.as_dict(), option=orjson.OPT_SERIALIZE_NUMPY)
        job.folder.write("comparison.json", content)
        for line in comparison.lines():
            job.progress.say(line)
    return report


def train_control(job: Job[Config, Inputs]) -> Report | None:
    """Train the second student, on traces drawn whatever their grades, in a run inside the run."""
    rows, manifest, parent = job.inputs.random, {"control": True}, job.folder.path
    job.progress.say(
        f"Training the control on {plural(len(rows), 'episode')} of random traces, whatever"
        " their grades."
    )
    resume = job.resume and (parent / CONTROL).exists()
    folder = Run.open(parent / CONTROL) if resume else Run.create(parent, CONTROL, manifest)
    with hold_run(folder, manifest, resume=resume):
        return train_student(replace(job, folder=folder, resume=resume), rows)


def read_traces(path: Path, task: Task) -> list[Trace]:
    """Return the traces in `path`; a document's recorded label answers the task's question."""
    logged: list[Trace] = []
    for row in read_rows(path):
        if isinstance(row, Trace):
            logged.append(row)
        elif row.recorded_label is not None:
            answer = task.answer_text(row.recorded_label, row=row.id)
            messages = (*task.messages(row.text), {"role": "assistant", "content": answer})
            logged.append(Trace(row.id, messages, gold=row.gold))
    return logged


def with_answer(task: Task, trace: Trace, grade: Grade) -> tuple[Message, ...]:
    """Return the chat with its answer in the task's spelling; calls and other words as they are."""
    if grade.value is None or trace.called:
        return trace.messages
    last = trace.messages[-1]
    thought = last["content"].removesuffix(strip_thinking(last["content"]))
    content = thought + task.answer_text(grade.value)
    return (*trace.messages[:-1], {**last, "content": content})


def episodes(
    config: Config, task: Task, chat: Chat, rows: Sequence[tuple[Trace, Grade]], progress: Progress
) -> tuple[Episode, ...]:
    """Return the episodes of the traces; only the assistant's turns are learned."""
    learned: list[Episode] = []
    for trace, grade in rows:
        if config.prompt == "trace":
            messages = with_answer(task, trace, grade)
            learned += chat.episodes(trace.id, messages, trace.tools, config.thinking)
            continue
        if not trace.single_shot:
            what = (
                f"row {trace.id!r} has tools or several turns, which the task's prompt cannot"
                " represent."
            )
            raise ConfigError(what, where=str(config.traces), next_step='Set prompt = "trace".')
        learned.append(trace_episode(chat, task, trace, grade))
    return fit_length(learned, config, progress)
