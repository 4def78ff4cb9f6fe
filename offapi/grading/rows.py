"""One line of a traces file: read, graded, and written with its grade, otherwise unchanged.

A document with a `recorded_label` counts as a trace whose answer is that label. Left out: labels
files, which hold no documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.checks.gold import compare_fields
from offapi.data import documents, traces
from offapi.data.documents import KnownAnswer
from offapi.data.rows import is_trace
from offapi.data.traces import Trace
from offapi.errors import DataError
from offapi.files import json_text, jsonl
from offapi.grading.table import RIGHT, UNKNOWN, WRONG
from offapi.task import Grade, Task

NO_ANSWER = "there is no recorded answer"


@dataclass(frozen=True)
class Gold:
    """Known answers from another file, by id and by document."""

    by_id: Mapping[str, KnownAnswer]
    by_document: Mapping[str, KnownAnswer]

    @classmethod
    def read(cls, path: Path, task: Task) -> Gold:
        """Read the gold of a documents file.

        Raises DataError where there is none, or where the task cannot compare it.
        """
        rows = [row for row in documents.read(path) if row.gold is not None]
        if not rows:
            raise DataError(
                "no document has gold.",
                where=str(path),
                next_step='Add "gold" to some of the documents.',
            )
        for row in rows:
            task.check_gold(row.gold or {}, row=row.id)
        by_id = {row.id: row.gold or {} for row in rows}
        return cls(by_id, {row.text: row.gold or {} for row in rows})

    def of(self, trace: Trace) -> KnownAnswer | None:
        """Return the known answer to `trace`, or None."""
        return self.by_id.get(trace.id) or self.by_document.get(trace.document)


def parse(line: bytes, path: Path, number: int, task: Task) -> Trace:
    """Return the trace in a line; raise DataError for anything else.

    A document without a recorded label has an empty answer.
    """
    return of(jsonl.parse(path, number, line.removeprefix(b"\xef\xbb\xbf")), task)


def of(row: jsonl.JsonRow, task: Task) -> Trace:
    """Return the trace in a row, as `parse` does."""
    if is_trace(row):
        return traces.parse(row)
    documents.check_keys(row)
    label, gold = (documents.known_answer(row, name) for name in ("recorded_label", "gold"))
    text, grade, id = row.required("document", str), row.optional("grade", dict), row.id
    answer = "" if label is None else task.answer_text(label, row=id)
    messages = (*task.messages(text), {"role": "assistant", "content": answer})
    return Trace(id, messages, group=row.optional("group", str), gold=gold, grade=grade)


def judge(task: Task, trace: Trace, grade: Grade | None, gold: Gold | None) -> int:
    """Return RIGHT if all fields that `task` compares equal the known answer, else WRONG.

    UNKNOWN where no answer is known, and for texts, of which many are right. Raises DataError where
    the task cannot compare the gold.
    """
    known = (gold.of(trace) if gold else None) or trace.gold
    if known is None or grade is None:
        return UNKNOWN
    task.check_gold(known, row=trace.id)
    if isinstance(known, str) or isinstance(grade.value, str):
        return UNKNOWN
    return RIGHT if all(compare_fields(grade.value, known, task.match).values()) else WRONG


def graded(line: bytes, grade: Mapping[str, Any]) -> bytes:
    """Return `line` with its grade and its other bytes unchanged."""
    bare = line.removeprefix(b"\xef\xbb\xbf").strip()
    if b'"grade"' in bare or b"NaN" in bare or b"Infinity" in bare:
        value = json_text.loads(bare)
        value.pop("grade", None)
        bare = orjson.dumps(value)  # which writes null for NaN
    return b'%b,"grade":%b}\n' % (bare[:-1].rstrip(), orjson.dumps(grade))


def as_dict(grade: Grade, task_sha256: str) -> dict[str, Any]:
    """Return a grade as the row stores it."""
    parts = {
        name: {"score": part.score, "reason": part.reason} for name, part in grade.parts.items()
    }
    return {"score": grade.score, "checks": parts, "task": task_sha256}
