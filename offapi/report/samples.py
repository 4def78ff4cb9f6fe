"""The documents and their answers for the sample browser.

Left out: rows beyond `MANY`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.data.documents import KnownAnswer
from offapi.evaluation.accuracy import Prediction
from offapi.report import document_files
from offapi.report.document_files import DocumentSource, cut
from offapi.report.render.table import text
from offapi.report.run_files import Answers, Look, Object, Record, number

MANY = 500  # most rows; those that fail or flip have priority
FEW = 5  # rows of a page without a browser
LONG_ANSWER = 4_000  # characters; the rest is cut
BEFORE = "before training"
PASSES = "passes"  # what is expected of each check of a task that answers with text
ASIDE = "Documents are left out (--no-documents)."


@dataclass(frozen=True)
class DocumentSample:
    """A document and every system's answer to it; None if it did not answer."""

    id: str
    document: str | None
    gold: tuple[str | None, ...]  # by field
    answers: tuple[Object | None, ...]  # output, values, right, grade
    rivals: int | None = None  # how many of the others can make it flip; None: all
    expected: str | None = None  # gold, where the task answers with text

    @property
    def fails(self) -> bool:
        """Whether the run's own answer is wrong in a field or, without gold, graded below 1."""
        own = self.answers[0] or {}
        return not all(own["right"]) if own.get("right") else (own.get("grade") or 0.0) < 1.0

    @property
    def flips(self) -> bool:
        """Whether a rival is right where the run's own answer is wrong, or the reverse."""
        others = self.answers[1:] if self.rivals is None else self.answers[1 : 1 + self.rivals]
        return any(other is not None and _differ(self.answers[0] or {}, other) for other in others)


@dataclass(frozen=True)
class Samples:
    """The rows that the browser shows, of `total` documents."""

    systems: tuple[str, ...]
    fields: tuple[str, ...]
    rows: tuple[DocumentSample, ...]
    total: int
    notes: tuple[str, ...] = ()
    rivals: int | None = None
    of_text: bool = False  # the fields are checks, and the answers themselves are to be read

    @property
    def pair_note(self) -> str:
        """What failing and flipped mean, if one of several systems is compared with one other."""
        if self.rivals != 1 or len(self.systems) < 2:
            return ""
        a, b = self.systems[:2]
        return (
            f"Failing: {a} is wrong in a field. Flipped: in a field, one of {a} and {b} is right"
            " and the other is wrong."
        )

    @property
    def documents(self) -> int:
        """The number of documents whose text is included."""
        return sum(row.document is not None for row in self.rows)

    @property
    def first(self) -> tuple[DocumentSample, ...]:
        """The few rows for a page without a browser: failing ones first, flipped ones before."""
        return tuple(sorted(self.rows, key=lambda row: (not row.fails, not row.flips))[:FEW])

    def as_dict(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        rows = [
            {"id": row.id, "document": row.document, "gold": row.gold, "answers": row.answers}
            | ({"expected": row.expected} if self.of_text else {})
            for row in self.rows
        ]
        rivals = len(self.systems) if self.rivals is None else self.rivals
        return {"systems": self.systems, "fields": self.fields, "rivals": rivals, "rows": rows}


def run_samples(
    record: Record, answers: Sequence[Answers], *, with_documents: bool
) -> Samples | None:
    """Return the run's own answers with those of `answers`, or its held-out answers.

    None if it has neither.
    """
    best = best_look(record)
    grades = {row["id"]: number(row.get("reward")) for row in best.rows} if best else {}
    systems = [_scored_system(one, grades if i == 0 else {}) for i, one in enumerate(answers)]
    if not answers or answers[0].name != record.name:
        systems = [(record.name, _looked(best)), *systems] if best else systems
    if best is not None and best.step != record.looks[0].step:
        systems.append((BEFORE, _looked(record.looks[0])))
    return _samples(
        systems, answers, document_files.run_sources(record) if with_documents else None
    )


def comparison_samples(
    answers: Sequence[Answers], test: DocumentSource | None, *, with_documents: bool
) -> Samples | None:
    """Return the first of `answers` against the second, with the others; None without answers."""
    systems = [_scored_system(one, {}) for one in answers]
    known = [test] if test else []
    return _samples(systems, answers, known if with_documents else None, rivals=1)


def _samples(
    systems: Sequence[tuple[str, Mapping[str, Object]]],
    answers: Sequence[Answers],
    known: Sequence[DocumentSource] | None,
    rivals: int | None = None,
) -> Samples | None:
    """Return the documents that the first system answered.

    If there are too many, those that fail or flip are kept.
    """
    if not systems:
        return None
    fields = answers[0].fields if answers else []
    golds = {id: row.gold for one in reversed(answers) for id, row in one.by_id.items()}
    wanted = list(systems[0][1])
    read, notes = (
        ({}, [ASIDE]) if known is None else document_files.read_texts(known, golds, wanted)
    )
    rows = []
    for id in wanted:
        answer = golds.get(id)
        gold = tuple(_value(answer, field) for field in fields) if id in golds else ()
        found = tuple(by_id.get(id) for _, by_id in systems)
        text = cut(answer, LONG_ANSWER) if isinstance(answer, str) else None
        rows.append(DocumentSample(id, read.get(id), gold, found, rivals, text))
    kept = sorted(
        sorted(range(len(rows)), key=lambda i: not (rows[i].fails or rows[i].flips))[:MANY]
    )
    names = tuple(name for name, _ in systems)
    shown = tuple(rows[i] for i in kept)
    of_text = any(not isinstance(gold, Mapping) for gold in golds.values())
    return Samples(names, tuple(fields), shown, len(rows), tuple(notes), rivals, of_text)


def best_look(record: Record) -> Look | None:
    """Return the evaluation whose adapter the run kept; the last one while it has none."""
    step = record.files.get("learned", {}).get("best_step")
    return next(
        (look for look in record.looks if look.step == step),
        record.looks[-1] if record.looks else None,
    )


def _scored_system(
    system: Answers, grades: Mapping[str, float | None]
) -> tuple[str, dict[str, Object]]:
    """Return the system's name, and its answers by id."""
    return system.name, {id: _scored(row, grades) for id, row in system.by_id.items()}


def _scored(row: Prediction, grades: Mapping[str, float | None]) -> Object:
    values = None if row.value is None else [_value(row.value, field) for field in row.correct]
    if row.of_text:
        values = [row.reasons.get(check, PASSES) for check in row.correct]
    right = list(row.correct.values())
    return {
        "output": cut(row.output, LONG_ANSWER),
        "values": values,
        "right": right,
        "grade": grades.get(row.id),
    }


def _looked(look: Look) -> dict[str, Object]:
    return {
        str(row["id"]): {
            "output": cut(str(row.get("output", "")), LONG_ANSWER),
            "values": None,
            "right": None,
            "grade": number(row.get("reward")),
        }
        for row in look.rows
        if "id" in row
    }


def _differ(own: Object, other: Object) -> bool:
    if own.get("right") and other.get("right"):
        return list(own["right"]) != list(other["right"])
    return (
        own.get("grade") is not None
        and other.get("grade") is not None
        and own["grade"] != other["grade"]
    )


def _value(values: KnownAnswer | None, field: str) -> str | None:
    # As text, since a script's numbers would lose digits; None if absent or null.
    if not isinstance(values, Mapping):
        return PASSES
    return None if values.get(field) is None else cut(text(values[field]), LONG_ANSWER)
