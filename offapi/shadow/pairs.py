"""The student's and the frontier's answer to each request, graded alike.

Gold decides where it is known; the task's checks and the two answers' agreement are there for every
request. Left out: statistics (`offapi.shadow.report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offapi.checks.gold import compare_fields, same_text
from offapi.checks.verdict import check_needs
from offapi.data.documents import KnownAnswer, fields_of
from offapi.data.rows import Row, row_text
from offapi.data.traces import Trace
from offapi.evaluation.accuracy import Prediction, make_predictions, recorded_predictions
from offapi.shadow.requests import answered_by, group_of
from offapi.task import Task

ANSWER = "answer"  # the one field of a task that answers with text


@dataclass(frozen=True)
class StudentAnswer:
    """What the student answered, None where that cannot be read; how certain it was, if known."""

    answer: KnownAnswer | None
    certainty: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class ShadowPair:
    """Two answers to one request. The scores are of the checks that need no gold."""

    id: str
    group: str | None
    student: StudentAnswer
    frontier: KnownAnswer | None
    agrees: Mapping[str, bool]  # by field
    scores: tuple[float, float] | None  # the student's and the frontier's; None without checks
    gold: tuple[Prediction, Prediction] | None  # both against gold, where it is known

    def as_row(self) -> dict[str, Any]:
        """Return a row of the file of pairs."""
        right = [dict(each.correct) for each in self.gold] if self.gold else [None, None]
        student, frontier = self.scores or (None, None)
        return {
            "id": self.id,
            "student": self.student.answer,
            "frontier": self.frontier,
            "agrees": dict(self.agrees),
            "certainty": self.student.certainty,
            "student_right": right[0],
            "frontier_right": right[1],
            "student_score": student,
            "frontier_score": frontier,
            "error": self.student.error,
        }


def pair_answers(
    task: Task, rows: Sequence[Row], answers: Mapping[str, StudentAnswer]
) -> list[ShadowPair]:
    """Grade the student's answer to each of `rows` and the recorded one alike.

    Raise ConfigError for a faulty check.
    """
    blind = without_gold_checks(task)
    golds = _against_gold(task, rows, answers)
    return [_pair(task, blind, row, answers[row.id], golds.get(row.id)) for row in rows]


def without_gold_checks(task: Task) -> Task | None:
    """Return `task` with the checks that need no gold, None where it has no other."""
    checks = {name: pair for name, pair in task.checks.items() if not check_needs(pair[0], "gold")}
    kept = tuple(name for name in task.audit if name in checks)
    return replace(task, checks=checks, audit=kept) if len(checks) > len(kept) else None


def recorded_answer(task: Task, row: Row) -> KnownAnswer | None:
    """Return what the frontier answered; None where that is not an answer of the task."""
    if not isinstance(row, Trace):
        return row.recorded_label
    read = task.read_trace(row)
    return (read.text or None) if task.free_text else read.value


def _pair(
    task: Task,
    blind: Task | None,
    row: Row,
    student: StudentAnswer,
    gold: tuple[Prediction, Prediction] | None,
) -> ShadowPair:
    frontier = recorded_answer(task, row)
    agrees = _agreement(task, student.answer, frontier)
    scores = None
    if blind is not None:
        scores = (_score(blind, row, student.answer), _score(blind, row, frontier))
    return ShadowPair(row.id, group_of(row), student, frontier, agrees, scores, gold)


def _agreement(
    task: Task, student: KnownAnswer | None, frontier: KnownAnswer | None
) -> dict[str, bool]:
    if task.free_text:
        both = isinstance(student, str) and isinstance(frontier, str)
        return {ANSWER: both and same_text(str(student), str(frontier))}
    if not isinstance(student, Mapping) or not isinstance(frontier, Mapping):
        return dict.fromkeys(task.match, False)
    return compare_fields(student, fields_of(frontier), task.match)


def _score(task: Task, row: Row, answer: KnownAnswer | None) -> float:
    """Return the grade of an answer as the task writes it, whoever gave it; 0 without one."""
    if answer is None:
        return 0.0
    return task.grade(row_text(row), task.answer_text(answer, row=row.id), row=row.id).score


def _against_gold(
    task: Task, rows: Sequence[Row], answers: Mapping[str, StudentAnswer]
) -> dict[str, tuple[Prediction, Prediction]]:
    """Return both answers' comparison with gold, by id; an answer that cannot be read is wrong."""
    known = [row for row in rows if row.gold is not None]
    given = [answers[row.id].answer for row in known]
    theirs = [recorded_answer(task, row) for row in known]
    sides = [_predictions(task, known, side) if known else [] for side in (given, theirs)]
    return {one.id: (one, other) for one, other in zip(*sides, strict=True)}


def _predictions(
    task: Task, rows: Sequence[Row], answers: Sequence[KnownAnswer | None]
) -> list[Prediction]:
    documents = [answered_by(row, answer) for row, answer in zip(rows, answers, strict=True)]
    if all(answer is None for answer in answers):
        found = make_predictions(task, documents, [""] * len(documents))
    else:
        found, _ = recorded_predictions(task, documents)
    return [replace(each, group=group_of(row)) for each, row in zip(found, rows, strict=True)]
