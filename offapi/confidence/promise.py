"""A run's calibration: how sure each field is, which ones are accepted, and what that promises.

`calibration.json` in the run's folder holds it. It belongs to one base, adapter, task and
constraint; with any other it is refused. Left out: making it (`offapi.calibrate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from offapi.adapter import WEIGHTS
from offapi.confidence.quality import ConfidenceQuality
from offapi.confidence.signals import FEATURES, FieldSignals, features
from offapi.errors import ConfigError, DataError
from offapi.files import atomic
from offapi.files.hashing import sha256_file
from offapi.files.weights_hash import sha256_weights

FILE = "calibration.json"
FORMAT = 1
WHOLE = "all fields"  # the name of whole documents among the fields'
AGAIN = "Calibrate again: offapi calibrate RUN --data REVIEWED.jsonl."


@dataclass(frozen=True)
class AnswersFrom:
    """What gives the answers: hashes of the base, its adapter and the task file, and the level."""

    base: str
    adapter: str | None  # None: the base alone
    task: str
    constrain: str  # off, schema, source or register

    @classmethod
    def of(cls, base: Path, adapter: Path | None, task_file: Path, constrain: str) -> AnswersFrom:
        """Hash the weights in two folders, and a task file.

        A register that the task names is not hashed: it may grow.
        """
        weights = None if adapter is None else sha256_file(adapter / WEIGHTS)
        return cls(sha256_weights(base), weights, sha256_file(task_file), constrain)


@dataclass(frozen=True)
class ConfidenceModel:
    """A logistic regression on `offapi.confidence.signals.FEATURES`, each centred and scaled."""

    features: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]  # above 0
    weights: tuple[float, ...]
    intercept: float

    def probability(self, signals: FieldSignals) -> float:
        """Return the probability that the field is right."""
        return float(self.probabilities(features(signals)[None])[0])

    def probabilities(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probabilities of answers by their features, (N, F) to (N,)."""
        scores = (values - self.centre) / self.scale @ np.array(self.weights) + self.intercept
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -500.0, 500.0))))


@dataclass(frozen=True, kw_only=True)
class AcceptedFrom:
    """From which probability on answers are accepted, and the counts that it rests on."""

    at: float | None  # None: none are accepted
    documents: int  # how many it was tested on
    accepted: int  # of those
    wrong: int  # of the accepted
    why_not: str = ""  # why none are accepted, and what would help


@dataclass(frozen=True)
class FieldPromise:
    """One field: how sure it is, and what is accepted of its values and of its nulls."""

    model: ConfidenceModel
    values: AcceptedFrom
    nulls: AcceptedFrom


@dataclass(frozen=True)
class Withdrawal:
    """When and why a promise no longer holds."""

    when: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Of each field's accepted answers at most `error` are wrong, with probability 1 - `delta`.

    It holds for all fields at once, and for `whole`, the documents whose fields are all right.
    """

    made_for: AnswersFrom
    error: float
    delta: float
    fields: Mapping[str, FieldPromise]
    whole: AcceptedFrom
    made: str  # date and time, UTC
    data: Mapping[str, Any]  # the reviewed documents: file, SHA-256, how many
    quality: Mapping[str, ConfidenceQuality] = field(default_factory=dict)  # of fields and WHOLE
    withdrawn: Withdrawal | None = None
    format: int = FORMAT


def apply(promise: Promise, name: str, signals: FieldSignals) -> tuple[float, bool]:
    """Return how probably the field `name` is right, and whether the promise covers it.

    After a withdrawal nothing is accepted. Raise ConfigError for a field that was not calibrated.
    """
    if name not in promise.fields:
        what = f"field {name!r} was not calibrated."
        raise ConfigError(what, next_step=AGAIN)
    known = promise.fields[name]
    threshold = known.nulls if signals.is_null else known.values
    confidence = known.model.probability(signals)
    return confidence, _accepts(promise, threshold, confidence)


def apply_whole(promise: Promise, confidences: Mapping[str, float]) -> tuple[float, bool]:
    """Return how probably all fields of a document are right, and whether the promise covers it.

    The fields' confidences are multiplied, as if they were independent; the threshold was tested
    on the same product.
    """
    confidence = prod(confidences[name] for name in promise.fields)
    return confidence, _accepts(promise, promise.whole, confidence)


def read(path: Path, answers: AnswersFrom | None = None) -> Promise:
    """Read a calibration.

    Raise ConfigError where it was made for something else than `answers`, which None does not
    check, and DataError where it is damaged.
    """
    try:
        promise = msgspec.convert(orjson.loads(path.read_bytes()), Promise)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise DataError.at(
            f"the calibration cannot be read ({error}).", path=path, next_step=AGAIN
        ) from None
    names = [known.model.features for known in promise.fields.values()]
    if promise.format != FORMAT or any(each != FEATURES for each in names):
        raise ConfigError(
            "the calibration was made by another version of offapi.",
            where=str(path),
            next_step=AGAIN,
        )
    if answers is not None and answers != promise.made_for:
        what = f"the calibration was made for another {_first_difference(promise, answers)}."
        raise ConfigError(what, where=str(path), next_step=AGAIN)
    return promise


def write(path: Path, promise: Promise) -> None:
    """Replace `path` atomically."""
    atomic.write_file(path, orjson.dumps(asdict(promise), option=orjson.OPT_INDENT_2))


def withdraw(path: Path, why: str) -> Promise:
    """Mark the calibration in `path` as withdrawn, and return it; the first reason stays."""
    promise = read(path)
    if promise.withdrawn is None:
        promise = replace(promise, withdrawn=Withdrawal(now(), why))
        write(path, promise)
    return promise


def now() -> str:
    """Return the time as a calibration states it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _accepts(promise: Promise, threshold: AcceptedFrom, confidence: float) -> bool:
    if promise.withdrawn is not None or threshold.at is None:
        return False
    return confidence >= threshold.at


def _first_difference(promise: Promise, answers: AnswersFrom) -> str:
    before, after = asdict(promise.made_for), asdict(answers)
    name = next(name for name in before if before[name] != after[name])
    if name == "constrain":
        return f"constraint (constrain = {before[name]!r}, and now {after[name]!r})"
    return name
