"""How sure a document's readings are of each field: what the confidence is computed from.

Left out: what the signals are worth (`offapi.confidence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from offapi.checks.gold import same_text, same_value
from offapi.checks.places import Span
from offapi.checks.verdict import Verdict, check_needs
from offapi.confidence.signals import LEAST, FieldSignals
from offapi.data.documents import Document
from offapi.predict.reading import Reading
from offapi.task import Task

Verdicts = Mapping[str, Verdict]


def judge(task: Task, document: Document, reading: Reading) -> Verdicts:
    """Return the verdicts of the task's checks, those that need gold left out.

    Raise ConfigError for a faulty check.
    """
    checks = {name: each for name, each in task.checks.items() if not check_needs(each[0], "gold")}
    if not checks:
        return {}
    asked = replace(task, checks=checks, audit=(), reward=None)
    return asked.grade(document.text, reading.text, row=document.id).parts


def field_signals(
    task: Task,
    name: str,
    reading: Reading,
    others: Sequence[Reading],
    second: Reading | None,
    verdicts: Verdicts,
    places: Sequence[Span],
    length: int,
) -> FieldSignals:
    """Return the signals of the field `name` of `reading`, the answer to a document.

    `others` are the candidates that were not chosen, `places` where the value stands among the
    `length` characters of the document. A field that the answer leaves out is as doubtful as can
    be.
    """
    value, tokens = reading.value(name), reading.fields.get(name)
    logprobs = tokens.free_logprobs if tokens else ()
    total = sum(logprobs) if logprobs else LEAST
    return FieldSignals(
        sum_logprob=total,
        mean_logprob=total / max(len(logprobs), 1),
        least_logprob=min(logprobs, default=LEAST),
        margin=min(tokens.margins if tokens else (), default=LEAST),
        runner_up=_lead(task, name, reading, others, total),
        agreement=None if second is None else same(task, name, second.value(name), value),
        checks=_score(name, verdicts),
        occurrences=len(places),
        place=places[0][0] / length if places else None,
        is_null=value is None,
    )


def same(task: Task, name: str, one: Any, other: Any) -> bool:
    """Return whether two values of a field are equal, as the task compares it with gold."""
    if one is None or other is None:
        return one is other
    if name in task.match:
        return same_value(task.match[name], one, other)
    if isinstance(one, str) and isinstance(other, str):
        return same_text(one, other)
    return bool(one == other)


def _lead(
    task: Task, name: str, reading: Reading, others: Sequence[Reading], total: float
) -> float | None:
    """Return by how much the value is likelier than the best other one; None without another."""
    value = reading.value(name)
    rivals = [
        sum(each.fields[name].free_logprobs)
        for each in others
        if name in each.fields and not same(task, name, each.value(name), value)
    ]
    return total - max(rivals) if rivals else None


def _score(name: str, verdicts: Verdicts) -> float | None:
    """Return the mean score of the checks; one that names what is not found counts by field."""
    scores = [
        float(name not in each.not_found) if each.not_found else each.score
        for each in verdicts.values()
    ]
    return sum(scores) / len(scores) if scores else None
