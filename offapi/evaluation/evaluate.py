"""A model's answers to a test set: asked for, scored,
written down, and counted in the run that trained it.

Counted, because a test set that is looked at often is no test any more. Left out: what is
shown of it (`offapi.cli.eval`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi.backend import DType, ModelSpec, default_backend, load
from offapi.chat.chat import IN_FRONT, Chat
from offapi.data.rows import Row
from offapi.evaluation import test_set
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.predict import Predictions, predict
from offapi.evaluation.sampled_accuracy import SampledReport, score_samples
from offapi.evaluation.test_set import count_scoring
from offapi.files import atomic
from offapi.models import store
from offapi.progress import Progress
from offapi.task import Task, load_task
from offapi.training.run import Run


@dataclass(frozen=True)
class Asked:
    """Which model shall answer, and how."""

    model: str
    adapter: Path | None
    shots: int
    samples: int
    temperature: float
    out: Path
    backend: str | None
    dtype: DType


@dataclass(frozen=True)
class Questions:
    """What shall be answered, with the gold."""

    task: Task
    data: Path
    rows: Sequence[Row]


@dataclass(frozen=True)
class Scored:
    """How good the answers are, what they cost, and what became of the count."""

    report: Report | SampledReport
    cost: Predictions
    times: (
        int | None
    )  # that this test set was scored for the run; None where no run trained this model
    out: Path

    def as_dict(self) -> dict[str, Any]:
        """What `offapi eval --json` prints: the report, what
        answering took, how often the run was scored on this.
        """
        scored = {} if self.times is None else {"scored": self.times}
        return {**self.report.as_dict(), **self.cost.totals(), **scored}

    def lines(self) -> list[str]:
        """For people: cost, answers cut off, the count, where everything is."""
        cost, cut = self.cost.cost(), sum(self.cost.truncated)
        lines = [f"{cost['prompt_tokens']:g} prompt tokens and {cost['seconds']:g} s a document."]
        if cut:
            lines.append(
                f"{cut} of {len(self.cost.truncated)} answers were cut off at the task's"
                " max_answer_tokens."
            )
        return [
            *lines,
            *([test_set.told(self.times)] if self.times else []),
            f"Predictions: {self.out}",
        ]


def questions(task_file: Path, data: Path, limit: int | None) -> Questions:
    """The task, and the first `limit` rows with gold for it; raises what reading them raises."""
    task = load_task(task_file)
    return Questions(task, data, test_set.read(data, task, limit))


def score(asked: Asked, questions: Questions, out: Progress) -> Scored:
    """Ask, score, write the predictions, count.

    RunError when the adapter's run is being written meanwhile.
    """
    run = test_set.run_of(asked.adapter) if asked.adapter else None
    if run is not None:
        _check_free(run)
    found = _ask(asked, questions, out)
    if asked.temperature == 0:
        report: Report | SampledReport = score_predictions(
            questions.task, questions.rows, found.outputs
        )
    else:
        report = score_samples(
            questions.task, questions.rows, found.outputs, asked.samples, asked.temperature
        )
    atomic.write_file(asked.out, report.jsonl())
    return Scored(
        report, found, _count(run, questions, out) if run is not None else None, asked.out
    )


def _ask(asked: Asked, questions: Questions, out: Progress) -> Predictions:
    folder = store.get(asked.model).path
    chat, spec = Chat.load(folder), ModelSpec(path=folder, adapter=asked.adapter, dtype=asked.dtype)
    if chat.no_system:
        out.say(IN_FRONT)
    backend = load(asked.backend or default_backend(), spec)
    try:
        return predict(
            backend,
            chat,
            questions.task,
            questions.rows,
            out,
            asked.shots,
            samples=asked.samples,
            temperature=asked.temperature,
        )
    finally:
        backend.close()


def _check_free(run: Run) -> None:
    """RunError when another process writes the run: its
    adapter may change, and the scoring cannot be counted.
    """
    with suppress(OSError), run.alone():
        pass


def _count(run: Run, questions: Questions, out: Progress) -> int | None:
    """How often the test set was now scored for the run;
    None, and said, where the run cannot be written.
    """
    try:
        return count_scoring(run, questions.data, len(questions.rows))
    except (OSError, atomic.NotCommitted) as error:
        out.say(f"This scoring is not counted, the run cannot be written: {error}")
        return None
