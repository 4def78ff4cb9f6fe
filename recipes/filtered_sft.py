"""Filtered SFT: grade what an agent already did, keep
the best, learn it; beside it, as many random traces.

The second student tells whether grading helped: it learns from the same number of traces,
drawn without a look at their grades. Left out: rating traces by anything but the task's checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from offapi.backend import load
from offapi.chat.chat import Chat, Thinking
from offapi.data import traces
from offapi.data.rows import Row, read_rows, row_text
from offapi.data.traces import Trace
from offapi.episodes import Episode
from offapi.errors import ConfigError, DataError
from offapi.evaluation.accuracy import Report
from offapi.evaluation.compare import compare_answers
from offapi.grading.keep import Keep, require_groups
from offapi.grading.select import choose
from offapi.models.store import Model, get
from offapi.progress import Progress
from offapi.randomness import order
from offapi.task import Grade, Task, load_task
from offapi.training.run import Run

from .distill import learned
from .sft import Training, answer_episode, fit_length, read_val, score, train

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


@dataclass(frozen=True)
class Inputs:
    """Everything the recipe reads, graded and chosen before anything is written."""

    task: Task
    model: Model
    chat: Chat
    kept: tuple[Episode, ...]
    random: tuple[Episode, ...]  # as many, whatever their grades
    val: tuple[Row, ...]
    report: bytes  # grading.json


def prepare(config: Config, out: Progress) -> Inputs:
    """Read, grade and choose; say what the grades are worth."""
    task, model = load_task(config.task), get(config.model)
    chat, val = Chat.load(model.path), read_val(config, task)
    found = read_traces(config.traces, task)
    require_groups(config.keep, (row.group for row in found), config.traces)
    rows = [(row, task.grade_trace(row)) for row in found]
    evaluation = [(row.id, row_text(row)) for row in val]
    chosen = choose(rows, task, config.keep, config.seed, evaluation=evaluation)
    for line in chosen.report.lines():
        out.say(line)
    if not chosen.kept:
        step = "See `offapi grade` for the reasons; lower keep.threshold, or mend the checks."
        raise DataError(
            f"none of {len(rows)} traces is kept.", where=str(config.traces), next_step=step
        )
    pool = order(config.seed, 0, len(chosen.eligible))
    drawn = sorted(chosen.eligible[i] for i in pool[: len(chosen.kept)])
    kept, random = ([rows[i] for i in which] for which in (chosen.kept, drawn))
    return Inputs(
        task,
        model,
        chat,
        episodes(config, task, chat, kept, out),
        episodes(config, task, chat, random, out) if config.control else (),
        val,
        orjson.dumps(chosen.report.as_dict(), option=orjson.OPT_SERIALIZE_NUMPY),
    )


def run(
    config: Config, inputs: Inputs, backend_name: str, folder: Run, out: Progress, resume: bool
) -> Report | None:
    """Train on what was kept, then on as many random
    traces; the kept ones' report, both compared.
    """
    folder.write("grading.json", inputs.report)
    report = student(config, inputs, inputs.kept, backend_name, folder, out, resume)
    if not config.control:
        return report
    out.say(f"The control: {len(inputs.random)} episodes of traces drawn whatever their grades.")
    again = resume and (folder.path / CONTROL).exists()
    control = (
        Run.open(folder.path / CONTROL)
        if again
        else Run.create(folder.path, CONTROL, {"control": True})
    )
    with control.lock():
        if again:
            control.resume({"control": True})
        other = student(config, inputs, inputs.random, backend_name, control, out, again)
    if report is not None and other is not None:
        compared = compare_answers(
            report.predictions, other.predictions, names=("graded", "ungraded")
        )
        folder.write(
            "comparison.json", orjson.dumps(compared.as_dict(), option=orjson.OPT_SERIALIZE_NUMPY)
        )
        for line in compared.lines():
            out.say(line)
    return report


def student(
    config: Config,
    inputs: Inputs,
    rows: Sequence[Episode],
    backend_name: str,
    folder: Run,
    out: Progress,
    resume: bool,
) -> Report | None:
    """Train one student on `rows` and score it; None without val."""
    backend = load(backend_name, config.spec(inputs.model))
    train(backend, rows, config, inputs.model, folder, out, resume)
    report = score(backend, inputs.chat, inputs.task, inputs.val, folder, out, config.val)
    backend.close()
    return report


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
    config: Config, task: Task, chat: Chat, rows: Sequence[tuple[Trace, Grade]], out: Progress
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
        made.append(
            answer_episode(chat, task, trace.id, trace.document, learned(task, trace, grade))
        )
    return fit_length(made, config, out)
