"""Distillation: a teacher labels, the task's checks drop bad labels, a student learns the rest.

Sequence-level knowledge distillation (Kim and Rush, arXiv 1606.07947). A teacher answers every
document with the task's worked examples in its prompt, or `offapi label` has done so before. Each
answer is graded by the task's checks; `keep` says which are good enough. The student learns the
kept answers as `sft` does, from prompts without worked examples. If the teacher is the student's
own base model, this is context distillation (Snell et al., arXiv 2209.15189). Of a task with tools,
the labels are the traces that `offapi label` wrote, and every turn of a kept one is learned.

Deviations from the papers:

- Labels are filtered by the task's checks; Kim and Rush train on all of the teacher's answers.
- A local teacher decodes greedily; Kim and Rush take the best answer of a beam search.
- The student starts from a pretrained chat model and trains a LoRA adapter, not all weights.
- An answer is written as the task writes answers, not in the teacher's own characters.
- Documents near those of `val` are not asked for, and near-duplicates are learned once.

Left out: learning from the teacher's distribution instead of its words, and asking again for an
answer that failed a check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import orjson

from offapi.chat.chat import Chat
from offapi.data import traces
from offapi.data.documents import Document
from offapi.data.rows import read_documents
from offapi.data.traces import Trace
from offapi.episodes import Episode
from offapi.errors import ConfigError
from offapi.evaluation.accuracy import Report
from offapi.grading.keep import Keep
from offapi.grading.select import choose
from offapi.models.store import get
from offapi.progress import Progress
from offapi.task import Grade, Task, load_task
from offapi.teachers.labelling import LabellingWatch, label_documents
from offapi.teachers.labels_file import Label, read_labels, settle_labels
from offapi.teachers.local import Local
from offapi.teachers.recorded import Recorded
from offapi.teachers.teacher import Teacher, parse_teacher
from offapi.text.display import plural
from offapi.training.job import Job

from .filtered_sft import with_answer
from .training import (
    StudentInputs,
    Training,
    fit_length,
    leave_out_scored,
    read_val,
    say_misfits,
    trace_episode,
    train_student,
)


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """Keys of `recipe = "distill"`."""

    recipe: Literal["distill"] = "distill"
    data: Path  # documents; their gold answers, if any, are not used
    teacher: str = "recorded"  # or local:NAME
    labels: Path | None = None  # a file that `offapi label` wrote, instead of asking a teacher
    shots: int | None = None  # worked examples in the teacher's prompt; None: all of the task's
    keep: Keep = Keep()  # which labels are good enough to learn
    name: str = "distill"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep.by_group:
            raise ValueError(
                f"keep has {self.keep.by_group}, but labels have no groups: each document has one"
                " label"
            )

    def reads(self) -> dict[str, Path]:
        """Return the files that the result depends on."""
        optional = {"val": self.val, "labels": self.labels}
        return {
            "task": self.task,
            "data": self.data,
            **{name: path for name, path in optional.items() if path},
        }


# the question as the student sees it with the teacher's answer, and its grade
Graded = tuple[Trace, Grade]


@dataclass(frozen=True, kw_only=True)
class Inputs(StudentInputs):
    """Everything the recipe reads, read and checked before anything is written."""

    rows: tuple[Document, ...]
    labels: tuple[Label, ...] | None  # read from a file; None: a teacher is asked
    traces: tuple[Trace, ...]  # in place of labels, where the task has tools


def prepare(config: Config, progress: Progress) -> Inputs:
    """Read and check the inputs, the teacher's name included."""
    task, model = load_task(config.task), get(config.model)
    labels: tuple[Label, ...] | None = None
    labelled: tuple[Trace, ...] = ()
    if task.is_agent:
        labelled = read_traces(config)
    elif config.labels:
        labels = tuple(settle_labels(read_labels(config.labels).labels).values())
    else:
        open_teacher(config, task, "")
    val, rows = read_val(config, task), read_documents(config.data)
    rows = leave_out_scored(rows, [row.text for row in rows], val, config, config.data, progress)
    return Inputs(
        task=task,
        model=model,
        chat=Chat.load(model.path, config.template),
        val=val,
        rows=tuple(rows),
        labels=labels,
        traces=labelled,
    )


def run(job: Job[Config, Inputs]) -> Report | None:
    """Label, grade, keep, train and score; return the report of `val`, or None without it."""
    config, inputs = job.config, job.inputs
    if inputs.task.is_agent:
        graded = grade_traces(inputs.task, inputs.rows, inputs.traces)
    else:
        labels = ask(job) if inputs.labels is None else inputs.labels
        graded = grade(inputs.task, inputs.rows, labels)
    job.folder.write("grades.jsonl", b"".join(map(as_line, graded)))
    kept = keep(job, graded)
    episodes = [episode for row in kept for episode in learned(inputs, row)]
    return train_student(job, fit_length(episodes, config, job.progress))


def read_traces(config: Config) -> tuple[Trace, ...]:
    """Return the traces that `labels` names; a recipe runs no teacher with tools."""
    if config.labels is None:
        step = "Run `offapi label ... --out traces.jsonl`, then set labels = 'traces.jsonl'."
        what = "a task with tools is labelled by `offapi label`, not by the recipe."
        raise ConfigError(what, where="labels", next_step=step)
    return tuple(traces.read(config.labels))


def learned(inputs: Inputs, row: Graded) -> list[Episode]:
    """Return what is learned of a kept answer: it alone, or an agent's turns."""
    trace, grade = row
    if not inputs.task.is_agent:
        return [trace_episode(inputs.chat, inputs.task, trace, grade)]
    messages = with_answer(inputs.task, trace, grade)
    return inputs.chat.episodes(trace.id, messages, trace.tools, "drop")


def ask(job: Job[Config, Inputs]) -> Sequence[Label]:
    """Return the teacher's labels; those already written are not asked for again."""
    config, inputs, progress = job.config, job.inputs, job.progress
    teacher = open_teacher(config, inputs.task, job.backend_name)
    with progress.progress(f"asking {teacher.name}", len(inputs.rows)) as advance:
        done = iter(range(1, len(inputs.rows) + 1))
        watch = LabellingWatch(answered=lambda _: advance(next(done)), say=progress.say)
        path = job.folder.path / "labels.jsonl"
        return label_documents(
            inputs.task, inputs.rows, teacher, path, shots=config.shots, watch=watch
        ).labels


def open_teacher(config: Config, task: Task, backend_name: str) -> Teacher:
    """Return the teacher that the recipe names.

    An endpoint is asked by `offapi label`, which knows its price and terms.
    """
    named = parse_teacher(config.teacher)
    if named.kind == "endpoint":
        step = (
            f"Run `offapi label --teacher {config.teacher} ... --out labels.jsonl`, then set labels"
            " = 'labels.jsonl'."
        )
        raise ConfigError(
            "a recipe cannot ask an endpoint.",
            where=f"teacher = {config.teacher!r}",
            next_step=step,
        )
    if named.kind == "recorded":
        return Recorded()
    return Local(
        get(named.target),
        backend_name,
        task.max_answer_tokens,
        config.dtype,
        recorded=config.template,
    )


def grade(task: Task, rows: Sequence[Document], labels: Sequence[Label]) -> list[Graded]:
    """Grade every answer by the task's checks; leave out documents without an answer."""
    answered = {label.id: label for label in labels if label.status == "ok"}
    graded = []
    for row in rows:
        if row.id in answered:
            answer = {"role": "assistant", "content": answered[row.id].output}
            trace = Trace(row.id, (*task.messages(row.text), answer))
            graded.append((trace, task.grade_trace(trace)))
    return graded


def grade_traces(task: Task, rows: Sequence[Document], labelled: Sequence[Trace]) -> list[Graded]:
    """Grade the last trace of every document as `grade` grades an answer, without gold."""
    by_id = {trace.id: replace(trace, gold=None) for trace in labelled}
    found = [by_id[row.id] for row in rows if row.id in by_id]
    return [(trace, task.grade_trace(trace)) for trace in found]


def keep(job: Job[Config, Inputs], graded: Sequence[Graded]) -> list[Graded]:
    """Return the answers good enough to learn; report the rest."""
    config, inputs = job.config, job.inputs
    chosen = choose(graded, inputs.task, config.keep, config.seed)
    report = orjson.dumps(chosen.report.as_dict(), option=orjson.OPT_SERIALIZE_NUMPY)
    job.folder.write("grading.json", report)
    failed = Counter(
        name for _, grade in graded for name, part in grade.parts.items() if part.score < 1
    )
    reasons = ", ".join(f"{name} {count}" for name, count in failed.most_common()) or "none"
    dropped = (
        ", ".join(f"{count} {reason}" for reason, count in chosen.report.dropped.items()) or "none"
    )
    for line in chosen.report.forms.lines():
        job.progress.say(line)
    job.progress.say(
        f"Kept {len(chosen.kept)} of {plural(len(graded), 'label')}. Failed checks: {reasons}."
        " Dropped:"
        f" {dropped}."
    )
    if not chosen.kept:
        step = (
            "See grades.jsonl in the run's folder for the reasons. Then fix the checks, choose a"
            " better teacher, or lower keep.threshold."
        )
        raise chosen.report.nothing_kept("labels", step)
    kept = [graded[i] for i in chosen.kept]
    say_misfits(inputs.task, kept, job.progress)
    return kept


def as_line(row: Graded) -> bytes:
    """Return a row of grades.jsonl."""
    trace, grade = row
    parts = {
        name: {"score": part.score, "reason": part.reason} for name, part in grade.parts.items()
    }
    line = {"id": trace.id, "output": trace.answer, "score": grade.score, "checks": parts}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
