"""Per-field accuracy of answers against gold, with 95% intervals.

A task that answers with text has no fields: its answers are right by its checks, each of which
passes at a score of 1. The checks in the task's audit are reported and do not make an answer wrong.
Documents of one `group` are alike, and the intervals count them together. Left out: producing the
answers (`offapi.evaluation.predict`), several sampled answers a document
(`offapi.evaluation.sampled_accuracy`), and comparing two systems (`offapi.evaluation.compare`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from offapi.agent.episode import AgentEpisode
from offapi.checks.answer_forms import AnswerForms, count_read
from offapi.checks.gold import compare_fields
from offapi.checks.verdict import Answer
from offapi.data.documents import KnownAnswer, fields_of, known_answer
from offapi.data.rows import Row, row_text
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.evaluation.episode_facts import EpisodeFacts, EpisodesReport
from offapi.evaluation.field_details import (
    FieldDetails,
    Inside,
    compare_inside,
    read_inside,
)
from offapi.files import jsonl
from offapi.stats.bootstrap import count, shares
from offapi.stats.interval import Interval
from offapi.task import Task
from offapi.text.display import plural

__all__ = [
    "Interval",
    "Prediction",
    "Report",
    "make_predictions",
    "read_predictions",
    "recorded_predictions",
    "score_predictions",
]


@dataclass(frozen=True)
class Prediction:
    """One answer and its gold; `value` is None where the output is not one JSON object.

    `forms` says what was set aside to read it, or why it cannot be read. `correct` holds each field
    of the task, or each check of a task that answers with text. Of such checks, `audit` holds those
    that do not count, and `reasons` why some did not pass.
    """

    id: str
    output: str
    value: KnownAnswer | None
    correct: Mapping[str, bool]
    gold: KnownAnswer | None  # None only where the task answers with text
    group: str | None = None  # conversation or other unit that the document belongs to
    sample: int | None = None  # the answer's number, where several were sampled
    forms: tuple[str, ...] = ()
    audit: Mapping[str, bool] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    inside: Inside = field(default_factory=dict)  # of lists and objects
    episode: EpisodeFacts | None = None  # how an agent came to it

    @property
    def of_text(self) -> bool:
        """Whether the task answers with text."""
        return not isinstance(self.gold, Mapping)

    def as_row(self) -> dict[str, Any]:
        """Return a row of predictions.jsonl; `group`, `sample` and `forms` only where set."""
        row = {
            "id": self.id,
            "output": self.output,
            "value": self.value,
            "correct": self.correct,
            "gold": self.gold,
        }
        more: dict[str, Any] = {"group": self.group, "sample": self.sample}
        names = ("forms", "audit", "reasons", "inside")
        more |= {name: getattr(self, name) or None for name in names}
        if self.episode is not None:
            more |= self.episode.as_row()
        return row | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True)
class Report:
    """Accuracy over `n` documents.

    `mean` is the mean of the fields' accuracies, `all_fields` the share of documents with every
    field right. For a task that answers with text, fields are its checks.
    """

    n: int
    mean: float
    all_fields: Interval
    fields: Mapping[str, Interval]
    predictions: tuple[Prediction, ...]
    audit: Mapping[str, Interval] = field(default_factory=dict)  # checks that do not count

    @cached_property
    def details(self) -> FieldDetails:
        """Nulls, items of lists and fields of objects, counted apart."""
        return FieldDetails.of(self.predictions)

    @property
    def forms(self) -> AnswerForms:
        """How many answers had something set aside, or cannot be read."""
        return count_prediction_forms(self.predictions)

    @cached_property
    def episodes(self) -> EpisodesReport | None:
        """What an agent's episodes took; None for answers of another kind."""
        return report_episodes(self.predictions)

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> Report:
        """Compute the accuracies of `predictions`; raise DataError when there are none."""
        if not predictions:
            raise DataError(
                "there are no documents to evaluate.", next_step="Name a file with documents."
            )
        correct = [row.correct for row in predictions]
        right = [list_right(predictions, name) for name in correct[0]]
        everything = [all(row.values()) for row in correct]
        aside = [_list_audit(predictions, name) for name in predictions[0].audit]
        whole, *each = shares([everything, *right, *aside], [row.group for row in predictions])
        audit = dict(zip(predictions[0].audit, each[len(right) :], strict=True))
        fields = dict(zip(correct[0], each, strict=False))
        mean = sum(field.mean for field in fields.values()) / len(fields)
        return cls(len(correct), mean, whole, fields, tuple(predictions), audit)

    def as_dict(self) -> dict[str, Any]:
        """Return the object `--json` prints: everything but the predictions."""
        fields = {name: asdict(interval) for name, interval in self.fields.items()}
        audit = {name: asdict(interval) for name, interval in self.audit.items()}
        return {
            "n": self.n,
            "mean": self.mean,
            "all_fields": asdict(self.all_fields),
            "fields": fields,
            "answers": asdict(self.forms),
            **self.details.as_dict(),
            **({"audit": audit} if audit else {}),
            **({"episodes": self.episodes.as_dict()} if self.episodes else {}),
        }

    def jsonl(self) -> bytes:
        """Return the content of predictions.jsonl, a line a document."""
        return predictions_jsonl(self.predictions)

    def table(self) -> list[tuple[str, str]]:
        """Return rows for people: each field, all fields, their mean; in percent with intervals."""
        parts = "checks" if self.predictions[0].of_text else "fields"
        whole = f"all {parts}" if self.episodes is None else f"success: all {parts}"
        named = {**self.fields, whole: self.all_fields}
        named |= {f"{name} (audit)": interval for name, interval in self.audit.items()}
        rows = [(name, interval.percent()) for name, interval in named.items()]
        units = count([row.group for row in self.predictions])
        documents = f"{self.n} in {plural(units, 'group')}" if units < self.n else str(self.n)
        mean = (f"mean of the {parts}", f"{100 * self.mean:.1f}")
        return [*rows, mean, ("documents", documents)]


def make_predictions(
    task: Task,
    rows: Sequence[Row],
    outputs: Sequence[str],
    episodes: Sequence[AgentEpisode] = (),
) -> list[Prediction]:
    """Compare each output with its row's gold, field by field; an agent's come with `episodes`.

    Raises DataError for the row that has no gold, or gold that the task cannot compare, and
    ValueError when there are not as many outputs as rows.
    """
    came: Sequence[AgentEpisode | None] = episodes or [None] * len(outputs)
    return [
        make_prediction(task, row, output, episode=episode)
        for row, output, episode in zip(rows, outputs, came, strict=True)
    ]


def make_prediction(
    task: Task,
    row: Row,
    output: str,
    sample: int | None = None,
    episode: AgentEpisode | None = None,
) -> Prediction:
    """Compare `output`, read as the task reads answers, with the gold of `row`.

    Checks see the whole chat of `episode`, and the row's own text as the document.

    Raises DataError where the gold cannot be compared, and what the checks of a task that answers
    with text raise.
    """
    facts = None if episode is None else EpisodeFacts.of(episode)
    return _compare(task, row, output, task.read_answer(output), sample, facts)


def score_predictions(
    task: Task,
    documents: Sequence[Row],
    outputs: Sequence[str],
    episodes: Sequence[AgentEpisode] = (),
) -> Report:
    """Return the accuracy of `outputs` as answers to `documents`, in the same order.

    Raises as `make_predictions` and `Report.of` do.
    """
    return Report.of(make_predictions(task, documents, outputs, episodes))


def recorded_predictions(task: Task, rows: Sequence[Row]) -> tuple[list[Prediction], list[str]]:
    """Score recorded answers: a document's `recorded_label`, a trace's last message.

    A document without one counts as wrong in every field; the ids of those come second. Raises
    DataError when no row has one.
    """
    answers = [row if isinstance(row, Trace) else row.recorded_label for row in rows]
    missing = [row.id for row, answer in zip(rows, answers, strict=True) if answer is None]
    if len(missing) == len(rows):
        step = 'Add "recorded_label" to the documents, or compare with a predictions file.'
        raise DataError("no document has a recorded answer.", next_step=step)
    pairs = zip(rows, answers, strict=True)
    return [_recorded(task, row, answer) for row, answer in pairs], missing


def count_prediction_forms(predictions: Sequence[Prediction]) -> AnswerForms:
    """Count the forms of the answers in `predictions`."""
    return count_read((row.forms, row.value is not None) for row in predictions)


def report_episodes(predictions: Sequence[Prediction]) -> EpisodesReport | None:
    """Return what the episodes of `predictions` took; None where not all have one.

    Samples of a document are resampled together, as are documents of a group.
    """
    known = [(row.episode, row) for row in predictions if row.episode is not None]
    if not known or len(known) < len(predictions):
        return None
    units = [row.group if row.sample is None else row.group or row.id for _, row in known]
    return EpisodesReport.of([episode for episode, _ in known], units)


def list_right(predictions: Sequence[Prediction], field: str) -> list[bool]:
    """Return for each of `predictions` whether `field` is right."""
    return [row.correct[field] for row in predictions]


def _list_audit(predictions: Sequence[Prediction], check: str) -> list[bool]:
    return [row.audit[check] for row in predictions]


def predictions_jsonl(predictions: Iterable[Prediction]) -> bytes:
    """Return the content of a predictions file."""
    return b"".join(jsonl.line(row.as_row()) for row in predictions)


def read_predictions(path: Path) -> list[Prediction]:
    """Read a predictions file; raise DataError with file, line and field for anything else."""
    seen: dict[tuple[str, int | None], int] = {}
    predictions: list[Prediction] = []
    for row in jsonl.read(path):
        read = _parse(row)
        if predictions and read.correct.keys() != predictions[0].correct.keys():
            what = (
                f"scored on {', '.join(read.correct)}, the rows before on"
                f" {', '.join(predictions[0].correct)}."
            )
            raise row.error(what, "correct", "Keep answers of one task only in this file.")
        if (read.id, read.sample) in seen:
            what = f"id {read.id!r} was already used in line {seen[read.id, read.sample]}."
            raise row.error(what, "id", "Keep one answer per document.")
        seen[read.id, read.sample] = row.line
        predictions.append(read)
    return predictions


def _parse(row: jsonl.JsonRow) -> Prediction:
    correct, sample = row.required("correct", dict), row.value.get("sample")
    for name, right in correct.items():
        if not isinstance(right, bool):
            raise row.error(
                f"must be true or false, got {orjson.dumps(right).decode()}.",
                f"correct.{name}",
                EVAL,
            )
    if not correct:
        raise row.error("no field was scored.", "correct", EVAL)
    if sample is not None and (not isinstance(sample, int) or isinstance(sample, bool)):
        raise row.error(
            f"must be a whole number, got {orjson.dumps(sample).decode()}.", "sample", EVAL
        )
    gold, group = known_answer(row, "gold"), row.optional("group", str)
    output, value = row.required("output", str), known_answer(row, "value")
    if "gold" not in row.value or (gold is None and isinstance(value, Mapping)):
        row.required("gold", dict)
    forms = tuple(map(str, row.optional("forms", list) or ()))
    audit, reasons = (row.optional(name, dict) or {} for name in ("audit", "reasons"))
    return Prediction(
        row.required("id", str),
        output,
        value,
        correct,
        gold,
        group,
        sample,
        forms,
        audit,
        reasons,
        read_inside(row.optional("inside", dict) or {}),
        EpisodeFacts.read(row),
    )


EVAL = "Write the file with `offapi eval --out`."


def _gold(task: Task, row: Row) -> KnownAnswer | None:
    """Return the gold of `row`; only checks that need it make it a must for answers in text."""
    if row.gold is None and task.free_text and not task.needs_gold:
        return None
    if row.gold is None:
        raise DataError(
            "there is no gold answer to compare with.",
            where=f"document {row.id!r}",
            next_step='Add "gold" to every document to be evaluated.',
        )
    task.check_gold(row.gold, row=row.id)
    return row.gold


def _group(row: Row) -> str | None:
    return row.group if isinstance(row, Trace) else None


def _compare(
    task: Task,
    row: Row,
    output: str,
    answer: Answer,
    sample: int | None = None,
    episode: EpisodeFacts | None = None,
) -> Prediction:
    if task.free_text:
        return _check(task, row, output, answer, sample, episode)
    gold = _gold(task, row)
    known = fields_of(gold)
    return Prediction(
        row.id,
        output,
        answer.value,
        compare_fields(answer.value, known, task.match),
        gold,
        _group(row),
        sample,
        answer.forms,
        inside=compare_inside(answer.value, known, task.match),
        episode=episode,
    )


def _check(
    task: Task,
    row: Row,
    output: str,
    answer: Answer,
    sample: int | None,
    episode: EpisodeFacts | None,
) -> Prediction:
    """Return the output, each check of the task passed or not, and the reasons of those not."""
    gold = _gold(task, row)
    if episode is None and task.is_agent and isinstance(row, Trace):  # a recorded episode
        grade = task.grade_trace(row)
    else:
        messages = () if episode is None else episode.messages
        text = row.asked if isinstance(row, Trace) and task.is_agent else row_text(row)
        grade = task.grade(text, answer.text, row.gold, row=row.id, messages=messages)
    passed = {name: part.score >= 1.0 for name, part in grade.parts.items()}
    correct = {name: ok for name, ok in passed.items() if name not in task.audit}
    audit = {name: ok for name, ok in passed.items() if name in task.audit}
    return Prediction(
        row.id,
        output,
        grade.value,
        correct,
        gold,
        _group(row),
        sample,
        answer.forms,
        audit,
        {name: grade.parts[name].reason for name, ok in passed.items() if not ok},
        episode=episode,
    )


def _recorded(task: Task, row: Row, answer: Trace | KnownAnswer | None) -> Prediction:
    if isinstance(answer, Trace):
        return _compare(task, row, answer.answer, task.read_trace(answer))
    output = "" if answer is None else task.answer_text(answer, row=row.id)
    value = answer if isinstance(answer, Mapping) else None
    return _compare(task, row, output, Answer(output, value))
