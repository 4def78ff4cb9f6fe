"""The documents and their answers, as the sample browser shows them.

Documents are read from where the run read them, matched by id, and left out where the file has
changed since. Left out: traces' earlier turns, and rows beyond `MANY`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi import testset
from offapi.data import documents, jsonl, traces
from offapi.errors import OffapiError
from offapi.evaluate import Prediction
from offapi.report.reading import Answers, Look, Object, Record, number
from offapi.report.tables import text

MANY = 500  # rows; those that fail or flip before the others
FEW = 5  # rows of a page without a browser
LONG, LONG_ANSWER = 20_000, 4_000  # characters; the rest is cut
BEFORE = "before training"


@dataclass(frozen=True)
class Sample:
    """A document and every system's answer to it, None where one did not answer."""

    id: str
    document: str | None
    gold: tuple[str | None, ...]  # by field
    answers: tuple[Object | None, ...]  # output, values, right, grade

    @property
    def fails(self) -> bool:
        """Whether the run's own answer is wrong somewhere, or, without gold, not of the highest grade."""
        own = self.answers[0] or {}
        return not all(own["right"]) if own.get("right") else (own.get("grade") or 0.0) < 1.0

    @property
    def flips(self) -> bool:
        """Whether another system is right where the run's own answer is not, or the other way round."""
        return any(other is not None and _differ(self.answers[0] or {}, other) for other in self.answers[1:])


@dataclass(frozen=True)
class Samples:
    """What the browser shows, of `total` documents."""

    systems: tuple[str, ...]
    fields: tuple[str, ...]
    rows: tuple[Sample, ...]
    total: int
    notes: tuple[str, ...] = ()

    @property
    def documents(self) -> int:
        """How many documents' texts are there."""
        return sum(row.document is not None for row in self.rows)

    @property
    def first(self) -> tuple[Sample, ...]:
        """The few that a page without a browser shows, as they come; those that fail before the others."""
        return tuple(sorted(self.rows, key=lambda row: not row.fails)[:FEW])

    def as_dict(self) -> dict[str, Any]:
        """What the page's script reads."""
        rows = [{"id": row.id, "document": row.document, "gold": row.gold, "answers": row.answers} for row in self.rows]
        return {"systems": self.systems, "fields": self.fields, "rows": rows}


def samples(record: Record, answers: Sequence[Answers], *, with_documents: bool) -> Samples | None:
    """The run's own answers beside those of `answers`, or its held-out looks; None where it has neither."""
    best = best_look(record)
    grades = {row["id"]: number(row.get("reward")) for row in best.rows} if best else {}
    systems = [
        (one.name, {id: _scored(row, grades if i == 0 else {}) for id, row in one.by_id.items()})
        for i, one in enumerate(answers)
    ]
    if not answers or answers[0].name != record.name:
        systems = [(record.name, _looked(best)), *systems] if best else systems
    if best is not None and best.step != record.looks[0].step:
        systems.append((BEFORE, _looked(record.looks[0])))
    if not systems:
        return None
    fields = answers[0].fields if answers else []
    golds = {id: row.gold for one in reversed(answers) for id, row in one.by_id.items()}
    wanted = list(systems[0][1])
    read, notes = read_documents(record, golds, wanted) if with_documents else ({}, ["Left out with --no-documents."])
    rows = [
        Sample(
            id,
            read.get(id),
            tuple(_value(golds.get(id, {}), field) for field in fields) if id in golds else (),
            tuple(found.get(id) for _, found in systems),
        )
        for id in wanted
    ]
    kept = sorted(sorted(range(len(rows)), key=lambda i: not (rows[i].fails or rows[i].flips))[:MANY])
    return Samples(
        tuple(name for name, _ in systems), tuple(fields), tuple(rows[i] for i in kept), len(rows), tuple(notes)
    )


def best_look(record: Record) -> Look | None:
    """The look whose adapter the run kept; the last one while it has none."""
    step = record.files.get("learned", {}).get("best_step")
    return next((look for look in record.looks if look.step == step), record.looks[-1] if record.looks else None)


def read_documents(
    record: Record, golds: Mapping[str, Mapping[str, Any]], ids: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """The texts of the documents `ids`, as far as the run can still read them, and why some are missing."""
    config, wanted = record.config, set(ids)
    files = [config.get("val"), record.path / "test.jsonl" if record.recipe == "demo" else None, config.get("data")]
    notes: list[str] = []
    for path in (Path(file) for file in files if isinstance(file, str | Path)):
        try:
            rows = _rows(path)
            changed = str(path) == config.get("val") and _changed(record, path)
        except (OffapiError, OSError) as error:
            notes.append(f"{path} cannot be read: {getattr(error, 'what', error)}")
            continue
        if changed:
            notes.append(f"{path} has changed since the run: its documents are left out.")
            continue
        same = [row for row in rows if row.id in wanted and golds.get(row.id, row.gold) == row.gold]
        if same:
            return {row.id: _cut(testset.text(row), LONG) for row in same}, notes
    return {}, notes or ["The run does not say where its documents are."]


def _rows(path: Path) -> Sequence[testset.Row]:
    """Documents or traces, whichever the file holds; without a task there is no more to check."""
    first = {} if path.is_dir() else jsonl.read(path)[0].value
    return traces.read(path) if "messages" in first and "document" not in first else documents.read(path)


def _changed(record: Record, path: Path) -> bool:
    scored = {one.get("data") for one in record.manifest.get("scored") or () if isinstance(one, dict)}
    return bool(scored) and testset.digest(path) not in scored


def _scored(row: Prediction, grades: Mapping[str, float | None]) -> Object:
    values = None if row.value is None else [_value(row.value, field) for field in row.correct]
    right = list(row.correct.values())
    return {"output": _cut(row.output, LONG_ANSWER), "values": values, "right": right, "grade": grades.get(row.id)}


def _looked(look: Look) -> dict[str, Object]:
    return {
        str(row["id"]): {
            "output": _cut(str(row.get("output", "")), LONG_ANSWER),
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
    return own.get("grade") is not None and other.get("grade") is not None and own["grade"] != other["grade"]


def _value(values: Mapping[str, Any], field: str) -> str | None:
    """As text, None where it is absent or null: a script's numbers would lose digits."""
    return None if values.get(field) is None else _cut(text(values[field]), LONG_ANSWER)


def _cut(value: str, most: int) -> str:
    return value if len(value) <= most else f"{value[:most]}\n… ({len(value) - most:,} more characters)"
