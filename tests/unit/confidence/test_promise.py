"""The calibration file: what it accepts, what it belongs to, and how it is withdrawn."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import orjson
import pytest

from offapi.confidence import promise
from offapi.confidence.promise import (
    AcceptedFrom,
    AnswersFrom,
    ConfidenceModel,
    FieldPromise,
    Promise,
)
from offapi.confidence.signals import FEATURES, SUREST, FieldSignals, features, log_odds
from offapi.errors import ConfigError, DataError

SIGNALS = FieldSignals(sum_logprob=-0.5, mean_logprob=-0.1, least_logprob=-0.3, margin=1.5)
ANSWERS = AnswersFrom(base="b" * 64, adapter="a" * 64, task="t" * 64, constrain="source")
ONLY_LOG_ODDS = ConfidenceModel(
    FEATURES,
    (0.0,) * len(FEATURES),
    (1.0,) * len(FEATURES),
    (1.0, *(0.0,) * (len(FEATURES) - 1)),
    0.0,
)
NOTHING = AcceptedFrom(at=None, documents=3, accepted=0, wrong=0, why_not="3 documents are too few")


def make_promise(at: float = 0.5) -> Promise:
    """Return a promise of one field, whose probability is that of its tokens."""
    values = AcceptedFrom(at=at, documents=300, accepted=299, wrong=0)
    return Promise(
        made_for=ANSWERS,
        error=0.01,
        delta=0.05,
        fields={"total": FieldPromise(ONLY_LOG_ODDS, values, NOTHING)},
        whole=values,
        made=promise.now(),
        data={"file": "reviewed.jsonl", "documents": 300},
    )


def with_chance(chance: float, **more: bool) -> FieldSignals:
    return replace(SIGNALS, sum_logprob=log(chance), **more)


def test_a_field_is_accepted_from_the_threshold_on() -> None:
    made = make_promise(at=0.8)
    confidence, accepted = promise.apply(made, "total", with_chance(0.9))
    assert confidence == pytest.approx(0.9)
    assert accepted
    assert not promise.apply(made, "total", with_chance(0.7))[1]


def test_nulls_have_a_threshold_of_their_own() -> None:
    assert not promise.apply(make_promise(), "total", with_chance(0.99, is_null=True))[1]


def test_whole_documents_are_accepted_by_the_product() -> None:
    made = make_promise(at=0.7)
    made = replace(made, fields={**made.fields, "date": made.fields["total"]})
    confidence, accepted = promise.apply_whole(made, {"total": 0.8, "date": 0.8})
    assert confidence == pytest.approx(0.64)
    assert not accepted


def test_a_field_without_calibration_is_refused() -> None:
    with pytest.raises(ConfigError, match="'vendor' was not calibrated"):
        promise.apply(make_promise(), "vendor", SIGNALS)


def test_the_file_returns_what_was_written(tmp_path: Path) -> None:
    made = make_promise()
    promise.write(tmp_path / promise.FILE, made)
    assert promise.read(tmp_path / promise.FILE, ANSWERS) == made


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"base": "x"}, "another base"),
        ({"adapter": None}, "another adapter"),
        ({"task": "x"}, "another task"),
        ({"constrain": "off"}, r"constrain = 'source', and now 'off'"),
    ],
)
def test_a_calibration_of_other_answers_is_refused(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    promise.write(tmp_path / promise.FILE, make_promise())
    with pytest.raises(ConfigError, match=named):
        promise.read(tmp_path / promise.FILE, replace(ANSWERS, **changed))


def test_answers_are_known_by_their_files(tmp_path: Path) -> None:
    for name in ("model.safetensors", "adapter_model.safetensors", "task.py"):
        (tmp_path / name).write_text(name)
    before = AnswersFrom.of(tmp_path, tmp_path, tmp_path / "task.py", "source")
    assert before == AnswersFrom.of(tmp_path, tmp_path, tmp_path / "task.py", "source")
    (tmp_path / "adapter_model.safetensors").write_text("trained further")
    after = AnswersFrom.of(tmp_path, tmp_path, tmp_path / "task.py", "source")
    assert after == replace(before, adapter=after.adapter) != before
    assert AnswersFrom.of(tmp_path, None, tmp_path / "task.py", "source").adapter is None


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / promise.FILE
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        promise.read(path)
    promise.write(path, make_promise())
    value = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps({**value, "format": 2}))
    with pytest.raises(ConfigError, match="another version"):
        promise.read(path)


def test_a_withdrawn_promise_accepts_nothing_and_keeps_its_first_reason(tmp_path: Path) -> None:
    path = tmp_path / promise.FILE
    promise.write(path, make_promise())
    promise.withdraw(path, "total is wrong too often")
    made = promise.withdraw(path, "later")
    assert made.withdrawn is not None
    assert made.withdrawn.why == "total is wrong too often"
    assert promise.read(path) == made
    assert not promise.apply(made, "total", with_chance(0.99))[1]
    assert not promise.apply_whole(made, {"total": 0.99})[1]


def test_signals_return_from_json() -> None:
    signals = replace(SIGNALS, agreement=True, checks=0.5, occurrences=2, place=0.25)
    assert FieldSignals.of(orjson.loads(orjson.dumps(signals.as_dict()))) == signals
    with pytest.raises(DataError, match="cannot be read"):
        FieldSignals.of({"sum_logprob": "high"})


def test_features_are_finite_and_say_yes_or_no() -> None:
    worst = FieldSignals(sum_logprob=-1e9, mean_logprob=-1e9, least_logprob=-1e9, margin=-1e9)
    assert len(features(worst)) == len(FEATURES)
    assert abs(features(worst)).max() <= SUREST
    at = FEATURES.index("agreement")
    votes = [features(replace(SIGNALS, agreement=vote))[at] for vote in (True, False, None)]
    assert votes == [1.0, -1.0, 0.0]


def test_log_odds_are_those_of_the_probability() -> None:
    assert log_odds(log(0.75)) == pytest.approx(log(3))
    assert log_odds(0.0) == SUREST
    assert log_odds(log(0.9999)) - log_odds(log(0.999)) == pytest.approx(log(9999 / 999))
