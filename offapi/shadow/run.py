"""A shadow run: ask the student what the frontier was asked, pair the answers, report.

Answers go into OUT.answers.jsonl as `offapi predict` writes them, so an interrupted run resumes and
a second one asks nothing; the pairs go into OUT. Left out: printing (`offapi.cli.shadow`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from offapi.errors import ConfigError
from offapi.evaluation.test_set import count_scoring
from offapi.files import atomic, jsonl
from offapi.files.lock import CannotLock
from offapi.predict.files import PredictFiles, predict_files
from offapi.predict.prediction import DocumentAnswer
from offapi.predict.predictor import AskedHow, Predictor
from offapi.progress import Progress
from offapi.shadow.certainty import Basis, by_confidence, by_signals
from offapi.shadow.pairs import ShadowPair, StudentAnswer, pair_answers
from offapi.shadow.report import ShadowReport
from offapi.shadow.requests import RecordedRequests


@dataclass(frozen=True)
class ShadowSettings:
    """Where the requests are and the pairs go, and what is wanted."""

    traces: Path
    out: Path
    margin: float
    wanted: float | None  # quality
    limit: int | None = None

    @property
    def answers(self) -> Path:
        """The file of the student's answers."""
        return self.out.with_name(f"{self.out.name}.answers.jsonl")


@dataclass(frozen=True)
class ShadowResult:
    """The report, and how often these requests were scored for the run; None without a run."""

    report: ShadowReport
    times: int | None


def shadow(
    predictor: Predictor,
    asked: AskedHow,
    requests: RecordedRequests,
    settings: ShadowSettings,
    progress: Progress,
) -> ShadowResult:
    """Ask, pair and report, and write the pairs.

    Raise ConfigError without a task or for a faulty check, and what `predict_files` raises.
    """
    if predictor.task is None:
        raise ConfigError("there is no task.", next_step="Name it with --task.")
    files = PredictFiles([settings.traces], settings.answers, limit=settings.limit, signals=True)
    predict_files(predictor, asked, files, progress)
    found = map(DocumentAnswer.of_row, (row.value for row in jsonl.read(settings.answers)))
    answers = {answer.id: answer for answer in found}
    known = [answers[row.id] for row in requests.rows]
    basis = certainty_basis(known)
    students = {each.id: student_answer(each, basis) for each in known}
    pairs = pair_answers(predictor.task, requests.rows, students)
    atomic.write_file(settings.out, b"".join(jsonl.line(pair.as_row()) for pair in pairs))
    report = ShadowReport.of(
        pairs,
        unanswered=requests.unanswered,
        margin=settings.margin,
        wanted=settings.wanted,
        basis=basis,
    )
    return ShadowResult(report, _count(predictor, pairs, settings))


def certainty_basis(answers: Sequence[DocumentAnswer]) -> Basis | None:
    """Return what says how certain these answers are: the same for all that can be read."""
    fields = [field for answer in answers for field in answer.fields.values()]
    if any(field.confidence is not None for field in fields):
        return "confidence"
    signals = [field.signals for field in fields if field.signals is not None]
    if not signals:
        return None
    if any(each.agreement is not None for each in signals):
        return "agreement and log-probability"
    return "log-probability"


def student_answer(answer: DocumentAnswer, basis: Basis | None) -> StudentAnswer:
    """Return an answer with its certainty; one that cannot be read has none."""
    if answer.answer is None or basis is None:
        return StudentAnswer(answer.answer, None, answer.error)
    fields = answer.fields
    if basis == "confidence":
        given = {name: field.confidence for name, field in fields.items()}
        known = {name: value for name, value in given.items() if value is not None}
        return StudentAnswer(answer.answer, by_confidence(known), answer.error)
    signals = {name: field.signals for name, field in fields.items() if field.signals is not None}
    return StudentAnswer(answer.answer, by_signals(signals), answer.error)


def _count(
    predictor: Predictor, pairs: Iterable[ShadowPair], settings: ShadowSettings
) -> int | None:
    """Count that a test set was scored; None without gold or a run that can be written."""
    scored, run = sum(pair.gold is not None for pair in pairs), predictor.answering.run
    if run is None or not scored:
        return None
    with suppress(OSError, CannotLock, atomic.NotCommitted):
        return count_scoring(run, settings.traces, scored)
    return None
