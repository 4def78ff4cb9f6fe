"""Answers with other fields than the task asks for: the commonest reason why no row is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from offapi.task import Task

SHOWN = 8  # names of fields


def other_fields(task: Task, answers: Iterable[Mapping[str, Any]]) -> str:
    """Return a sentence if every one of `answers` lacks a field the task requires; else "".

    It names the commonest fields of the answers and those of the task.
    """
    schema = task.schema or {}
    required = schema.get("required") or list(schema.get("properties", {}))
    found: Counter[str] = Counter()
    count = 0
    for answer in answers:
        if not required or all(name in answer for name in required):
            return ""
        found.update(answer.keys())
        count += 1
    if not count:
        return ""
    theirs = ", ".join(name for name, _ in found.most_common(SHOWN)) or "nothing"
    return (
        f"The answers have the fields {theirs}; the task asks for {', '.join(required[:SHOWN])}."
        " Change the task's schema, or read other traces."
    )
