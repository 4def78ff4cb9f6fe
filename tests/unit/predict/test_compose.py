"""From readings to an answer: the likeliest candidate, its signals, and what is accepted."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any

import pytest

import offapi
from offapi.checks import fits_schema, in_source, is_json, matches_gold
from offapi.confidence import promise
from offapi.confidence.promise import (
    AcceptedFrom,
    AnswersFrom,
    ConfidenceModel,
    FieldPromise,
    Promise,
)
from offapi.confidence.signals import FEATURES, LEAST
from offapi.data.documents import Document
from offapi.predict.compose import Readings, best_reading, compose, with_confidence, without_signals
from offapi.predict.reading import FieldTokens, Reading

TASK = offapi.Task(
    name="t",
    instructions="Read.",
    schema={
        "type": "object",
        "properties": {"vendor": {"type": ["string", "null"]}, "total": {"type": "number"}},
        "required": ["vendor"],
    },
    checks={
        "json": (is_json, 1.0),
        "schema": (fits_schema, 1.0),
        "source": (in_source, 1.0),
        "gold": (matches_gold, 1.0),
    },
    match={"vendor": "text", "total": "number"},
)
DOCUMENT = Document("d", "ACME Ltd sells.\nTotal 12.50\nACME Ltd thanks you.")


def reading(text: str, **logprobs: tuple[float, ...]) -> Reading:
    fields = {
        name: FieldTokens((0, 1), each, tuple(-value for value in each))
        for name, each in logprobs.items()
    }
    return Reading(text, TASK.read_answer(text), fields, tokens=9)


ACME = reading('{"vendor":"ACME Ltd","total":12.50}', vendor=(-0.1, -0.3), total=(-0.5,))


def test_the_answer_has_each_fields_place() -> None:
    answer = compose(TASK, DOCUMENT, Readings((ACME,)))
    assert answer.answer == {"vendor": "ACME Ltd", "total": 12.5}
    start, end = answer["vendor"].evidence or (0, 0)
    assert (start, DOCUMENT.text[start:end]) == (0, "ACME Ltd")
    start, end = answer["total"].evidence or (0, 0)
    assert DOCUMENT.text[start:end] == "12.50"
    assert answer["vendor"].signals is None


def test_signals_are_those_of_the_fields_own_tokens() -> None:
    second = reading('{"vendor":"acme ltd.","total":1}')
    answer = compose(TASK, DOCUMENT, Readings((ACME,), second), signals=True)
    vendor, total = answer["vendor"].signals, answer["total"].signals
    assert vendor is not None
    assert total is not None
    assert vendor.sum_logprob == pytest.approx(-0.4)
    assert vendor.mean_logprob == pytest.approx(-0.2)
    assert [vendor.least_logprob, vendor.margin, vendor.runner_up] == [-0.3, 0.1, None]
    assert [vendor.agreement, total.agreement] == [True, False]  # as the task compares them
    assert [vendor.occurrences, vendor.place, vendor.is_null] == [2, 0.0, False]
    assert total.place == pytest.approx(DOCUMENT.text.index("12.50") / len(DOCUMENT.text))
    assert vendor.checks == 1.0  # the one against gold is left out


def test_a_check_that_names_a_field_counts_for_that_field() -> None:
    wrong = reading('{"vendor":"Nowhere Inc","total":12.50}', vendor=(-1.0,), total=(-1.0,))
    answer = compose(TASK, DOCUMENT, Readings((wrong,)), signals=True)
    vendor, total = answer["vendor"].signals, answer["total"].signals
    assert vendor is not None
    assert total is not None
    assert vendor.checks == pytest.approx(2 / 3)
    assert total.checks == 1.0
    assert [vendor.occurrences, vendor.place] == [0, None]
    assert answer["vendor"].evidence is None


def test_what_is_left_out_is_as_doubtful_as_can_be() -> None:
    partly = reading('{"vendor":null}', vendor=(-0.1,))
    answer = compose(TASK, DOCUMENT, Readings((partly,)), signals=True)
    total = answer["total"].signals
    assert total is not None
    assert [total.sum_logprob, total.least_logprob, total.margin] == [LEAST] * 3
    assert [total.is_null, answer["total"].value] == [True, None]
    assert answer["vendor"].signals is not None
    assert answer["vendor"].signals.is_null


def test_the_likeliest_candidate_by_length_is_answered() -> None:
    short = reading('{"vendor":"ACME","total":12.50}', vendor=(-0.5,), total=(-0.1,))
    long = reading('{"vendor":"ACME Ltd sells","total":12.50}', vendor=(-0.2,) * 4, total=(-9.0,))
    assert best_reading(TASK, [short, long]) is long  # the total is the same, and does not count
    answer = compose(TASK, DOCUMENT, Readings((short, long)), signals=True)
    assert answer["vendor"].value == "ACME Ltd sells"
    assert answer["vendor"].signals is not None
    assert answer["vendor"].signals.runner_up == pytest.approx(-0.8 - -0.5)


def test_the_first_candidate_is_answered_where_all_are_alike() -> None:
    same = reading('{"vendor":"Acme ltd","total":12.5}', vendor=(0.0,), total=(0.0,))
    assert best_reading(TASK, [ACME, same]) is ACME
    broken = reading("{")
    assert best_reading(TASK, [broken, ACME]) is ACME
    assert best_reading(TASK, [broken, broken]) is broken


def test_what_cannot_be_read_is_an_error() -> None:
    answer = compose(TASK, DOCUMENT, Readings((reading('{"vendor"'),)))
    assert [answer.answer, answer.fields] == [None, {}]
    assert "not JSON" in str(answer.error)
    cut = replace(reading('{"vendor"'), cut=True)
    answer = compose(TASK, DOCUMENT, Readings((cut,)))
    assert answer.error == "the answer was cut off at the task's max_answer_tokens."


def make_promise(at: float | None, whole: float | None) -> Promise:
    """Return a promise for vendors alone, whose confidence is the probability of their tokens."""
    ones = tuple(1.0 for _ in FEATURES)
    zeros = tuple(0.0 for _ in FEATURES)
    weights = tuple(float(name == "log_odds") for name in FEATURES)
    model = ConfidenceModel(FEATURES, zeros, ones, weights, 0.0)

    def accepted(at: float | None) -> AcceptedFrom:
        return AcceptedFrom(at=at, documents=9, accepted=9, wrong=0)

    return Promise(
        made_for=AnswersFrom("a", None, "b", "schema"),
        error=0.01,
        delta=0.05,
        fields={"vendor": FieldPromise(model, accepted(at), accepted(None))},
        whole=accepted(whole),
        made=promise.now(),
        data={},
    )


@pytest.mark.parametrize(
    ("at", "whole", "accepted"),
    [(0.5, 0.5, (True, True)), (0.99, 0.5, (False, True)), (0.5, None, (True, False))],
)
def test_a_promise_accepts_from_its_threshold_on(
    at: float, whole: float | None, accepted: tuple[bool, bool]
) -> None:
    given = compose(TASK, DOCUMENT, Readings((ACME,)), signals=True)
    sure = with_confidence(given, make_promise(at, whole))
    assert sure["vendor"].confidence == pytest.approx(exp(-0.4))
    assert (sure["vendor"].accepted, sure.accepted) == accepted
    assert [sure["total"].confidence, sure["total"].accepted] == [None, None]
    assert without_signals(sure)["vendor"].signals is None


def test_without_an_answer_nothing_is_accepted() -> None:
    given = compose(TASK, DOCUMENT, Readings((reading("{"),)), signals=True)
    assert with_confidence(given, make_promise(0.0, 0.0)).accepted is False


def test_an_answer_is_written_and_read_again() -> None:
    given = compose(TASK, DOCUMENT, Readings((ACME,), ACME), signals=True)
    row: dict[str, Any] = given.as_row()
    assert type(given).of_row(row) == given
    assert list(row) == ["id", "answer", "fields", "accepted", "error"]
