"""From reviewed answers to a promise: cross-fitted probabilities, then a threshold per field.

The tests of all fields' values and nulls and of whole documents share `delta` (Bonferroni), so the
promise holds for all of them at once. The binomial bound is exact for scores that were fixed
beforehand. Here they are cross-fitted, so that few documents suffice, and a simulation shows that
the promise holds at its rate (`tests/unit/calibrate/test_simulation.py`). Left out: asking the
model (`offapi.calibrate.ask`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.calibrate.advice import why_none
from offapi.confidence import model
from offapi.confidence.promise import WHOLE, AcceptedFrom, FieldPromise
from offapi.confidence.quality import ConfidenceQuality, measure
from offapi.confidence.signals import FieldSignals
from offapi.stats.learn_then_test import accept_from, documents_needed


@dataclass(frozen=True)
class ReviewedAnswer:
    """An answer with what is known of it: each field's signals, and whether it is right."""

    id: str
    signals: Mapping[str, FieldSignals]
    right: Mapping[str, bool]


@dataclass(frozen=True)
class ScoredField:
    """N documents: cross-fitted probabilities, those by log-probability alone, what is right."""

    ids: NDArray[np.str_]
    chances: NDArray[np.float64]
    by_logprob: NDArray[np.float64]
    right: NDArray[np.bool_]

    def where(self, kept: NDArray[np.bool_]) -> ScoredField:
        """Return some of the documents."""
        return ScoredField(
            self.ids[kept], self.chances[kept], self.by_logprob[kept], self.right[kept]
        )


@dataclass(frozen=True)
class FittedPromise:
    """What the reviewed documents allow to promise, and the scores behind it."""

    fields: Mapping[str, FieldPromise]
    whole: AcceptedFrom
    scored: Mapping[str, ScoredField]  # by field, and WHOLE
    level: float  # of each test

    def quality(self) -> dict[str, ConfidenceQuality]:
        """Return the figures of each field, and of WHOLE."""
        figures = {}
        for name, each in self.scored.items():
            ids = each.ids.tolist()
            figures[name] = measure(ids, each.chances, each.by_logprob, each.right, self.level)
        return figures


def fit_promise(answers: Sequence[ReviewedAnswer], error: float, delta: float) -> FittedPromise:
    """Fit each field's confidence, and test from where on its answers are accepted.

    `answers` are one or more, each to another document.
    """
    names = list(answers[0].right)
    scored = {name: _cross_fitted(answers, name) for name in names}
    whole = _product(list(scored.values()))
    parts = {}
    for name in names:
        null = np.array([row.signals[name].is_null for row in answers])
        parts[name] = (scored[name].where(~null), scored[name].where(null))
    level = delta / _count_tests([*sum(parts.values(), ()), whole], error, delta)
    promises = {}
    for name, (values, nulls) in parts.items():
        fitted = model.fit([row.signals[name] for row in answers], list(scored[name].right))
        accepted = (_accept(values, error, level), _accept(nulls, error, level))
        promises[name] = FieldPromise(fitted, *accepted)
    everything = {**scored, WHOLE: whole}
    return FittedPromise(promises, _accept(whole, error, level), everything, level)


def _count_tests(parts: Sequence[ScoredField], error: float, delta: float) -> int:
    """Return how many tests share `delta`: those with documents enough to pass alone.

    Where none has, it is all that have documents, since these need more.
    """
    least = documents_needed(error, delta)
    enough = sum(len(part.ids) >= least for part in parts)
    return enough or sum(len(part.ids) > 0 for part in parts)


def _cross_fitted(answers: Sequence[ReviewedAnswer], name: str) -> ScoredField:
    ids = [row.id for row in answers]
    signals = [row.signals[name] for row in answers]
    right = [row.right[name] for row in answers]
    control = model.by_logprob()
    return ScoredField(
        np.array(ids),
        model.cross_fit(ids, signals, right),
        np.array([control.probability(each) for each in signals]),
        np.array(right, bool),
    )


def _product(fields: Sequence[ScoredField]) -> ScoredField:
    """Return whole documents: right where all fields are, their probabilities multiplied."""
    chances = np.prod([each.chances for each in fields], axis=0)
    by_logprob = np.prod([each.by_logprob for each in fields], axis=0)
    right = np.all([each.right for each in fields], axis=0)
    return ScoredField(fields[0].ids, chances, by_logprob, right)


def _accept(part: ScoredField, error: float, level: float) -> AcceptedFrom:
    tested = accept_from(part.chances, part.right, error, level)
    if tested.at is not None:
        return AcceptedFrom(
            at=tested.at, documents=len(part.ids), accepted=tested.accepted, wrong=tested.wrong
        )
    why = why_none(part.chances, part.right, error, level)
    return AcceptedFrom(at=None, documents=len(part.ids), accepted=0, wrong=0, why_not=why)
