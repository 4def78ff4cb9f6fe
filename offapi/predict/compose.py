"""From a document's readings to its answer: the likeliest candidate, and what is known of it.

Left out: how signals become a confidence (`offapi.confidence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from offapi.checks.places import Span
from offapi.confidence import promise
from offapi.confidence.promise import Promise
from offapi.confidence.signals import FieldSignals
from offapi.constrain.evidence import places
from offapi.data.documents import Document
from offapi.predict.answer_fields import answer_fields
from offapi.predict.prediction import DocumentAnswer, FieldAnswer
from offapi.predict.reading import Reading
from offapi.predict.signals import field_signals, judge, same
from offapi.task import Task

CUT = "the answer was cut off at the task's max_answer_tokens"


@dataclass(frozen=True)
class Readings:
    """What a model wrote for one document: the candidates, likeliest start first, and a free one.

    Without a bound the one candidate is free itself, and there is no `second`.
    """

    candidates: tuple[Reading, ...]
    second: Reading | None = None

    @property
    def tokens(self) -> int:
        """The tokens of all readings."""
        read = self.candidates if self.second is None else (*self.candidates, self.second)
        return sum(each.tokens for each in read)


def compose(
    task: Task, document: Document, readings: Readings, *, signals: bool = False
) -> DocumentAnswer:
    """Return the answer that the likeliest candidate gives, without confidences.

    `signals` also judges every field, by the other readings and the task's checks. Raise
    ConfigError for a faulty check.
    """
    best = best_reading(task, readings.candidates)
    answer = best.answer.text or None if task.free_text else best.answer.value
    if answer is None:
        why = CUT if best.cut else best.answer.error
        return DocumentAnswer(document.id, None, error=f"{why}.")
    values = {name: best.value(name) for name in answer_fields(task)}
    found = {name: places(task, name, value, document.text) for name, value in values.items()}
    known = _signals(task, document, best, readings, found) if signals else {}
    fields = {
        name: FieldAnswer(
            value, evidence=found[name][0] if found[name] else None, signals=known.get(name)
        )
        for name, value in values.items()
    }
    return DocumentAnswer(document.id, answer, fields)


def best_reading(task: Task, candidates: Sequence[Reading]) -> Reading:
    """Return the candidate whose values are likeliest.

    Compared are the fields in which candidates differ, by the mean log-probability of the tokens
    of each. The first one where none can be read or all are alike.
    """
    read = [each for each in candidates if each.answer.value is not None] or [candidates[0]]
    first = read[0]

    def differs(name: str) -> bool:
        return any(not same(task, name, each.value(name), first.value(name)) for each in read[1:])

    names = list(filter(differs, first.fields))
    return max(read, key=lambda each: _likelihood(each, names))


def with_confidence(answer: DocumentAnswer, given: Promise) -> DocumentAnswer:
    """Return `answer` with the confidences that its signals have, and with what is accepted.

    Fields that were not calibrated, since the task does not compare them with gold, have none.
    """
    if answer.error is not None:
        return replace(answer, accepted=False)
    fields = dict(answer.fields)
    for name in given.fields:
        confidence, accepted = promise.apply(given, name, _known(fields[name]))
        fields[name] = replace(fields[name], confidence=confidence, accepted=accepted)
    confidences = {name: each.confidence or 0.0 for name, each in fields.items()}
    _, accepted = promise.apply_whole(given, confidences)
    return replace(answer, fields=fields, accepted=accepted)


def without_signals(answer: DocumentAnswer) -> DocumentAnswer:
    """Return `answer` without what its confidences were computed from."""
    fields = {name: replace(each, signals=None) for name, each in answer.fields.items()}
    return replace(answer, fields=fields)


def _known(answer: FieldAnswer) -> FieldSignals:
    if answer.signals is None:
        raise ValueError("a confidence needs signals; compose the answer with them")
    return answer.signals


def _likelihood(reading: Reading, names: Sequence[str]) -> float:
    """Return the mean over fields of their tokens' mean log-probability; 0 without any."""
    means = [reading.fields[name].mean_logprob for name in names if name in reading.fields]
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if known else 0.0


def _signals(
    task: Task,
    document: Document,
    best: Reading,
    readings: Readings,
    found: Mapping[str, Sequence[Span]],
) -> dict[str, FieldSignals]:
    verdicts = judge(task, document, best)
    others = [each for each in readings.candidates if each is not best]
    length = len(document.text)
    return {
        name: field_signals(task, name, best, others, readings.second, verdicts, where, length)
        for name, where in found.items()
    }
