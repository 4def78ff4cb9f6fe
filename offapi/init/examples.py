"""Worked examples: a few short rows that pass every check and differ in what they answer.

Left out: rows that are held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from offapi.init.infer_task import Inferred
from offapi.init.source import SourceRow
from offapi.task import Task

MOST = 4
LONGEST = 1500  # characters of an example's document
CANDIDATES = 200  # rows that are graded


def with_examples(inferred: Inferred, task: Task, rows: Sequence[SourceRow]) -> Inferred:
    """Add worked examples from `rows` to the draft."""
    short = sorted(
        (row for row in rows if len(row.document) <= LONGEST), key=lambda row: len(row.document)
    )
    best = [row for row in short[:CANDIDATES] if _score(task, row) >= 1.0]
    chosen: list[SourceRow] = []
    seen: set[str] = set()
    while best and len(chosen) < min(MOST, len(rows) // 2):
        row = max(best, key=lambda one: len(_values(one) - seen))
        chosen.append(row)
        seen |= _values(row)
        best.remove(row)
    if not chosen:
        note = f"no worked examples: no row under {LONGEST} characters passes every check"
        return replace(inferred, unsure=(*inferred.unsure, note))
    pairs = tuple((row.document, row.answer) for row in chosen if row.answer is not None)
    facts = (*inferred.facts, f"worked examples: {', '.join(row.id for row in chosen)}")
    return replace(inferred, draft=replace(inferred.draft, examples=pairs), facts=facts)


def _score(task: Task, row: SourceRow) -> float:
    return task.grade(row.document, task.answer_text(row.answer or ""), row=row.id).score


def _values(row: SourceRow) -> set[str]:
    """Return what an answer shows: its short values, and which fields are null."""
    return set(_shown("", row.answer)) if isinstance(row.answer, Mapping) else set()


def _shown(path: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for name, part in value.items() for text in _shown(f"{path}.{name}", part)]
    if isinstance(value, list):
        return [f"{path}: {len(value)}"]
    return [f"{path}: {value}"] if value is None or len(str(value)) <= 20 else []
