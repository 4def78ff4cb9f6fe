"""Calibrate a run: its answers to reviewed documents become confidences and a promise.

Left out: printing (`offapi.cli.calibrate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from offapi.calibrate.ask import FILE, ask, compare, read_answers, read_level
from offapi.calibrate.fit import ReviewedAnswer, fit_promise
from offapi.calibrate.reviewed import read_reviewed
from offapi.confidence import promise
from offapi.confidence.promise import AnswersFrom, Promise
from offapi.confidence.table import HEAD, promise_lines, promise_rows
from offapi.constrain import Level
from offapi.data.documents import Document
from offapi.errors import ConfigError, DataError
from offapi.evaluation.test_set import count_scoring, scoring_sentence
from offapi.files import atomic
from offapi.files.hashing import sha256_path
from offapi.files.lock import CannotLock
from offapi.predict.level import strongest_level
from offapi.predict.prediction import DocumentAnswer
from offapi.predict.predictor import Predictor
from offapi.progress import Progress
from offapi.task import Task
from offapi.text.display import share
from offapi.training.run import Run


@dataclass(frozen=True)
class CalibrateSettings:
    """What is promised, and on which documents."""

    data: Path
    error: float
    delta: float
    answers: Path | None  # from `offapi predict --signals`; None: the model is asked
    constrain: Level | None = None  # None: as far as the task declares


@dataclass(frozen=True)
class CalibrationResult:
    """A written calibration."""

    promise: Promise
    path: Path
    lines: tuple[str, ...]

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the head and the rows of the table for people."""
        return HEAD, promise_rows(self.promise)

    def as_dict(self) -> dict[str, Any]:
        """Return the object for --json."""
        return {"calibration": str(self.path), **asdict(self.promise)}


def calibrate(
    predictor: Predictor, settings: CalibrateSettings, progress: Progress
) -> CalibrationResult:
    """Ask, compare with gold, fit, and write `calibration.json` into the run's folder.

    Raise ConfigError for a model without a run or a task without fields, DataError for documents
    that cannot be used, and what asking raises.
    """
    run, task = predictor.answering.run, predictor.task
    if run is None or task is None or predictor.task_file is None:
        step = "Name the folder of a run, such as runs/NAME."
        raise ConfigError("only a run with its task can be calibrated.", next_step=step)
    reviewed = read_reviewed(settings.data, task, run)
    for line in reviewed.lines():
        progress.say(line)
    level, given = _answers(predictor, task, run, reviewed.documents, settings, progress)
    answers = compare(task, reviewed.documents, given)
    if not answers:
        raise DataError.at("no answer can be read.", path=settings.data, next_step="Train further.")
    made = _promise(predictor, predictor.task_file, level, answers, settings)
    promise.write(run.path / promise.FILE, made)
    lines = promise_lines(made)
    if unread := len(given) - len(answers):
        count = share(unread, len(given), "answer", ("was", "were"))
        lines.append(f"{count} not readable. Such answers are never accepted.")
    lines += _count(run, settings.data, len(given), progress)
    return CalibrationResult(made, run.path / promise.FILE, tuple(lines))


def _answers(
    predictor: Predictor,
    task: Task,
    run: Run,
    documents: Sequence[Document],
    settings: CalibrateSettings,
    progress: Progress,
) -> tuple[Level, list[DocumentAnswer]]:
    """Return how the answers are bound, and the answers: from a file, or asked."""
    if settings.answers is None:
        level = settings.constrain or strongest_level(task)
        return level, ask(predictor, level, documents, run.path / FILE, progress)
    return read_level(settings.answers, predictor), read_answers(settings.answers, documents)


def _promise(
    predictor: Predictor,
    task_file: Path,
    level: Level,
    answers: Sequence[ReviewedAnswer],
    settings: CalibrateSettings,
) -> Promise:
    fitted = fit_promise(answers, settings.error, settings.delta)
    model = predictor.answering
    data = {
        "file": settings.data.name,
        "sha256": sha256_path(settings.data),
        "documents": len(answers),
    }
    return Promise(
        made_for=AnswersFrom.of(model.model.path, model.adapter, task_file, level),
        error=settings.error,
        delta=settings.delta,
        fields=fitted.fields,
        whole=fitted.whole,
        made=promise.now(),
        data=data,
        quality=fitted.quality(),
    )


def _count(run: Run, data: Path, documents: int, progress: Progress) -> list[str]:
    """Count that the documents were scored for the run, as `offapi eval` does."""
    try:
        return [scoring_sentence(count_scoring(run, data, documents))]
    except (OSError, CannotLock, atomic.NotCommitted) as error:
        progress.say(f"This scoring was not counted: the run cannot be written. {error}")
        return []
