"""How good are these answers: per-field accuracy against gold, with 95% intervals.

Left out: producing the answers (a backend's work) and comparing two systems on the same
documents, which needs paired statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from offapi.checks.gold import compare
from offapi.checks.verdict import parse
from offapi.data.documents import Document
from offapi.errors import DataError
from offapi.task import Task


@dataclass(frozen=True)
class Interval:
    """A rate and its 95% Wilson score interval (Wilson 1927), all in [0, 1]."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, right: Sequence[bool]) -> Interval:
        """The share of True in `right`, which may not be empty."""
        from scipy.stats import binomtest

        bounds = binomtest(sum(right), len(right)).proportion_ci(confidence_level=0.95, method="wilson")
        return cls(sum(right) / len(right), float(bounds.low), float(bounds.high))

    def percent(self) -> str:
        """As `90.0 [78.6–95.7]`."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}–{100 * self.high:.1f}]"


@dataclass(frozen=True)
class Prediction:
    """One answer against its gold. `value` is None where the output is not one JSON object."""

    id: str
    output: str
    value: Mapping[str, Any] | None
    correct: Mapping[str, bool]
    gold: Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """Accuracy over `n` documents. `mean` is the mean of the fields' means, `all_fields` the rate of rows all right."""

    n: int
    mean: float
    all_fields: Interval
    fields: Mapping[str, Interval]
    predictions: tuple[Prediction, ...]

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> Report:
        """The accuracies of `predictions`; DataError when there are none."""
        if not predictions:
            raise DataError("there are no documents to evaluate.", next_step="Name a file that has some.")
        correct = [row.correct for row in predictions]
        fields = {name: Interval.of([row[name] for row in correct]) for name in correct[0]}
        mean = sum(field.mean for field in fields.values()) / len(fields)
        everything = Interval.of([all(row.values()) for row in correct])
        return cls(len(correct), mean, everything, fields, tuple(predictions))

    def as_dict(self) -> dict[str, Any]:
        """The object `--json` prints: everything but the predictions."""
        fields = {name: asdict(interval) for name, interval in self.fields.items()}
        return {"n": self.n, "mean": self.mean, "all_fields": asdict(self.all_fields), "fields": fields}

    def jsonl(self) -> bytes:
        """The content of predictions.jsonl, a line a document."""
        return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in self.predictions)

    def table(self) -> list[tuple[str, str]]:
        """For people: each field, all of them together, their mean; in percent, with the interval."""
        named = {**self.fields, "all fields": self.all_fields}
        rows = [(name, interval.percent()) for name, interval in named.items()]
        return [*rows, ("mean of the fields", f"{100 * self.mean:.1f}"), ("documents", str(self.n))]


def predictions(task: Task, documents: Sequence[Document], outputs: Sequence[str]) -> list[Prediction]:
    """Each output beside its document's gold, field by field.

    DataError names the document that has no gold, or gold that the task cannot compare.
    ValueError when there are not as many outputs as documents.
    """
    return [_prediction(task, document, output) for document, output in zip(documents, outputs, strict=True)]


def _prediction(task: Task, document: Document, output: str) -> Prediction:
    if document.gold is None:
        raise DataError(
            "there is no gold answer to compare with.",
            where=f"document {document.id!r}",
            next_step='Give every document to be evaluated its "gold".',
        )
    task.check_gold(document.gold, row=document.id)
    value = parse(output).value
    return Prediction(document.id, output, value, compare(value, document.gold, task.match), document.gold)


def score_predictions(task: Task, documents: Sequence[Document], outputs: Sequence[str]) -> Report:
    """How well `outputs` answer `documents`, in the same order. Raises as `predictions` and `Report.of` do."""
    return Report.of(predictions(task, documents, outputs))
