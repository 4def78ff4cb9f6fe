"""From reviewed answers to a promise: parts, corrections, and what would help where none holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offapi.calibrate.advice import documents_for, why_none
from offapi.calibrate.fit import ReviewedAnswer, fit_promise
from offapi.confidence import model
from offapi.confidence.promise import WHOLE
from offapi.confidence.signals import FieldSignals
from offapi.stats.learn_then_test import documents_needed

SIGNALS = FieldSignals(sum_logprob=-0.1, mean_logprob=-0.1, least_logprob=-0.1, margin=3.0)


def reviewed(count: int, nulls: int = 0, wrong: int = 0) -> list[ReviewedAnswer]:
    """Return answers of two fields: `date`, of which some are null, and the last `wrong` wrong."""
    answers = []
    for i in range(count):
        doubt = 4.0 if i >= count - wrong else 0.1
        sure = replace(SIGNALS, sum_logprob=-doubt, least_logprob=-doubt, margin=3 - doubt)
        signals = {"date": replace(sure, is_null=i < nulls), "total": sure}
        right = {"date": i < count - wrong, "total": i < count - wrong}
        answers.append(ReviewedAnswer(str(i), signals, right))
    return answers


def test_tests_share_delta() -> None:
    fitted = fit_promise(reviewed(80), 0.05, 0.05)
    assert fitted.level == pytest.approx(0.05 / 3)  # date, total, all fields
    assert documents_needed(0.05, fitted.level) == 80
    assert fitted.fields["date"].values.accepted == 80
    assert fitted.whole.accepted == 80


def test_nulls_are_accepted_only_where_there_are_enough() -> None:
    few = fit_promise(reviewed(160, nulls=20), 0.05, 0.05).fields["date"]
    assert few.nulls.at is None
    assert few.nulls.why_not.startswith("20 documents, and at least 80 are needed")
    assert few.values.accepted == 140
    enough = fit_promise(reviewed(200, nulls=100), 0.05, 0.05).fields["date"]
    assert (enough.values.accepted, enough.nulls.accepted) == (100, 100)


def test_doubtful_answers_are_left_out() -> None:
    fitted = fit_promise(reviewed(200, wrong=40), 0.05, 0.05)
    known = fitted.fields["total"]
    assert known.values.at is not None
    assert known.values.accepted >= 155
    assert known.values.wrong <= 3
    quality = fitted.quality()
    assert quality["total"].model.auroc is not None
    assert quality["total"].model.auroc.mean > 0.99
    assert quality[WHOLE].right.mean == pytest.approx(0.8)
    assert set(quality["total"].surest_wrong) <= {str(i) for i in range(160, 200)}


def test_too_few_documents_are_said_to_be() -> None:
    fitted = fit_promise(reviewed(30), 0.01, 0.05)
    assert fitted.whole.at is None
    assert "30 documents, and at least 408 are needed" in fitted.whole.why_not


def test_a_document_is_scored_by_a_model_that_did_not_see_it() -> None:
    answers = reviewed(40, wrong=8)
    signals = [each.signals["total"] for each in answers]
    right = [each.right["total"] for each in answers]
    ids = [each.id for each in answers]
    chances = model.cross_fit(ids, signals, right)
    flipped = [not right[0], *right[1:]]
    assert model.cross_fit(ids, signals, flipped)[0] == chances[0]
    assert model.fit(signals, flipped) != model.fit(signals, right)


def test_folds_follow_the_ids_alone() -> None:
    ids = [str(i) for i in range(23)]
    held = model.folds(ids)
    assert np.sum(held, axis=0).tolist() == [1] * 23
    shuffled = model.folds(ids[::-1])
    assert all((a == b[::-1]).all() for a, b in zip(held, shuffled, strict=True))


def test_a_fold_without_wrong_answers_ranks_by_sureness() -> None:
    signals = [replace(SIGNALS, sum_logprob=-0.1 * i) for i in range(1, 30)]
    fitted = model.fit(signals, [True] * 29)
    chances = [fitted.probability(each) for each in signals]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > chances[-1]


def test_what_would_help_is_more_documents_or_better_gold() -> None:
    right = np.ones(100, bool)
    right[10] = False
    enough = documents_for(right, 0.05, 0.0125)
    assert enough is not None
    assert 120 < enough < 400
    chances = np.linspace(1, 0, 100)
    assert "about" in why_none(chances, right, 0.05, 0.0125)
    assert "gold is ambiguous" in why_none(chances, np.arange(100) % 4 > 0, 0.05, 0.0125)
