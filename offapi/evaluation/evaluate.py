"""Ask a model every question of a test set, score its answers, and keep them.

`evaluate_model` does so for `offapi eval` and counts it in the run that trained the model, because
a test set that is scored often no longer tests anything. An `AnswersFile` keeps answers so that an
interrupted demo or comparison reuses them. Left out: printing (`offapi.cli.eval`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from offapi import adapter
from offapi.backend import default_backend, load
from offapi.chat.chat import IN_FRONT, Chat
from offapi.chat.cut_off import cut_off_advice
from offapi.chat.template_options import Options
from offapi.constrain import Constraints, Level
from offapi.data.rows import Row
from offapi.evaluation import accuracy, test_set
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.agent_answers import EPISODE_TOKENS, agent_of, refuse_constraints
from offapi.evaluation.predict import Predictions, predict
from offapi.evaluation.sampled_accuracy import SampledReport, score_samples
from offapi.evaluation.test_set import count_scoring
from offapi.files import atomic
from offapi.files.hashing import sha256_file
from offapi.files.lock import CannotLock
from offapi.model_spec import DType, ModelSpec
from offapi.models import store
from offapi.progress import LOADING, Progress
from offapi.task import Task, load_task
from offapi.text.display import share
from offapi.training.base_bits import Bits, TrainedBits
from offapi.training.prompt_settings import options_of
from offapi.training.run import Run


@dataclass(frozen=True)
class EvalSettings:
    """Which model answers, and how."""

    model: str
    adapter: Path | None
    shots: int
    samples: int
    temperature: float
    out: Path
    backend: str | None
    dtype: DType
    constrain: Level = "off"
    template: Options = field(default_factory=dict)  # settings of the chat template
    bits: Bits = "trained"  # that the base is loaded in


@dataclass(frozen=True)
class Questions:
    """The rows of a test set, with their gold, and the task that asks them."""

    task: Task
    data: Path
    rows: Sequence[Row]


@dataclass(frozen=True)
class EvalResult:
    """How good the answers are, what they cost, and how often the test set was scored."""

    report: Report | SampledReport
    cost: Predictions
    # how often this test set was scored for the run; None where no run trained this model
    times: int | None
    out: Path
    constrain: Level = "off"
    cut_off: str = ""  # the cause, where every answer was cut off
    bits: int | None = None  # that the base was loaded in; None: as it is stored

    def as_dict(self) -> dict[str, Any]:
        """Return what `offapi eval --json` prints: the report, its cost, the count of scorings."""
        scored = {} if self.times is None else {"scored": self.times}
        bound = {} if self.constrain == "off" else {"constrain": self.constrain}
        bits = {} if self.bits is None else {"quantize": self.bits}
        return {**self.report.as_dict(), **self.cost.totals(), **scored, **bound, **bits}

    def lines(self) -> list[str]:
        """Return sentences: cost, truncated answers, the count, where everything is."""
        cost, cut = self.cost.cost(), sum(self.cost.truncated)
        lines = [f"{cost['prompt_tokens']:g} prompt tokens and {cost['seconds']:g} s per document."]
        if cut:
            count = share(cut, len(self.cost.truncated), "answer", ("was", "were"))
            lines.append(f"{count} cut off at the task's max_answer_tokens.")
        lines += [self.cut_off] if self.cut_off else []
        lines += self._constraint_lines()
        lines += self.report.forms.lines()
        if self.times:
            lines.append(test_set.scoring_sentence(self.times))
        return [*lines, f"Predictions: {self.out}"]

    def _constraint_lines(self) -> list[str]:
        """Return what bound the answers, and for which fields there was nothing to read."""
        if self.constrain == "off":
            return []
        documents = len(self.cost.outputs) // self.cost.samples
        lines = [f"Answers were constrained: {self.constrain}."]
        for path, count in self.cost.unread.items():
            known = share(count, documents, "document", ("prints", "print"))
            lines.append(f"{known} nothing to read for {path}, which the schema alone bound there.")
        return lines


@dataclass(frozen=True)
class Scored:
    """How good a model's stored answers are, their cost per document, and where they are."""

    report: Report
    cost: Mapping[str, float]  # prompt tokens, completion tokens and seconds per document
    path: Path


@dataclass(frozen=True)
class AnswersFile:
    """A model's answers, stored in `path`; the JSON file of the same name holds their cost.

    `key` is what the answers depend on and is stored too; None where the path already says it.
    """

    path: Path
    key: Mapping[str, Any] | None = None

    def read(self) -> Scored | None:
        """Return what `write` stored; None where it is incomplete or had another key."""
        try:
            note = orjson.loads(self._note.read_bytes())
            whole = self.path.is_file()
            if self.key is not None:
                whole = note["key"] == self.key and note["answers"] == sha256_file(self.path)
                note = note["cost"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not whole:
            return None
        return Scored(Report.of(accuracy.read_predictions(self.path)), note, self.path)

    def write(self, questions: Questions, answers: Predictions) -> Scored:
        """Score `answers` and store them. The note is written last and marks them complete."""
        task, rows = questions.task, questions.rows
        report = score_predictions(task, rows, answers.outputs, answers.episodes)
        cost = answers.cost()
        note: Mapping[str, Any] = cost
        atomic.write_file(self.path, report.jsonl())
        if self.key is not None:
            note = {"key": self.key, "answers": sha256_file(self.path), "cost": cost}
        atomic.write_file(self._note, orjson.dumps(note))
        return Scored(report, cost, self.path)

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".json")


def read_questions(task_file: Path, data: Path, limit: int | None) -> Questions:
    """Read the task and the first `limit` rows with gold for it.

    Raises what reading them raises.
    """
    task = load_task(task_file)
    return Questions(task, data, test_set.read(data, task, limit))


def ask_model(
    backend_name: str,
    spec: ModelSpec,
    chat: Chat,
    questions: Questions,
    progress: Progress,
    *,
    shots: int = 0,
    samples: int = 1,
    temperature: float = 0.0,
    constraints: Constraints | None = None,
    max_tokens: int = EPISODE_TOKENS,
) -> Predictions:
    """Load the model that `spec` names and return its answers to `questions`."""
    progress.say(LOADING)
    backend = load(backend_name, spec)
    try:
        return predict(
            backend,
            chat,
            questions.task,
            questions.rows,
            progress,
            shots,
            samples=samples,
            temperature=temperature,
            constraints=constraints,
            max_tokens=max_tokens,
        )
    finally:
        backend.close()


def evaluate_model(settings: EvalSettings, questions: Questions, progress: Progress) -> EvalResult:
    """Ask the model, score its answers, write the predictions, count the scoring.

    Raises RunError while the adapter's run is being written.
    """
    run = test_set.run_of(settings.adapter) if settings.adapter else None
    if run is not None:
        _check_free(run)
    model = store.get(settings.model)
    chat = Chat.load(model.path, settings.template, options_of(run))
    backend = settings.backend or default_backend()
    trained = TrainedBits.of(settings.adapter, run)
    bits = trained.choose(settings.bits)
    spec = ModelSpec(path=model.path, adapter=settings.adapter, dtype=settings.dtype, quantize=bits)
    if settings.adapter and (doubt := adapter.doubt_base(settings.adapter, model.name, bits)):
        progress.say(doubt)
    for line in trained.lines(bits, backend):
        progress.say(line)
    if chat.no_system:
        progress.say(IN_FRONT)
    bound = None
    if questions.task.is_agent:  # before minutes of loading
        agent_of(questions.task, chat)
        refuse_constraints(settings.constrain)
    if settings.constrain != "off":
        bound = Constraints.of(questions.task, chat, settings.constrain)
    answers = ask_model(
        backend,
        spec,
        chat,
        questions,
        progress,
        shots=settings.shots,
        samples=settings.samples,
        temperature=settings.temperature,
        constraints=bound,
        max_tokens=min(EPISODE_TOKENS, model.context or EPISODE_TOKENS),
    )
    report = _report(settings, questions, answers)
    atomic.write_file(settings.out, report.jsonl())
    times = _count(run, questions, progress) if run is not None else None
    cause = cut_off_advice(chat, answers.said) if all(answers.truncated) else ""
    return EvalResult(report, answers, times, settings.out, settings.constrain, cause, bits)


def _report(
    settings: EvalSettings, questions: Questions, answers: Predictions
) -> Report | SampledReport:
    task, rows, outputs = questions.task, questions.rows, answers.outputs
    samples, temperature, episodes = settings.samples, settings.temperature, answers.episodes
    if temperature == 0:
        return score_predictions(task, rows, outputs, episodes)
    return score_samples(task, rows, outputs, samples, temperature, episodes)


def _check_free(run: Run) -> None:
    """Raise RunError while another process writes the run.

    Its adapter may change, and the scoring cannot be counted.
    """
    with suppress(OSError, CannotLock), run.alone():
        pass


def _count(run: Run, questions: Questions, progress: Progress) -> int | None:
    """Count the scoring and return how many there are; None where the run cannot be written."""
    try:
        return count_scoring(run, questions.data, len(questions.rows))
    except (OSError, CannotLock, atomic.NotCommitted) as error:
        progress.say(f"This scoring was not counted: the run cannot be written. {error}")
        return None
