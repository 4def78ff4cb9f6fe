"""The fields of a task's answer that are answered for one by one.

They are the paths that the task compares with gold, and what else its schema has, down to the
values inside objects. Left out: the items of a list, which is one field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from offapi.checks.schema_types import properties_of, types_of
from offapi.task import Task

TEXT = "answer"  # the one field of a task that answers with text
_DEEPEST = 8  # objects inside each other; a schema may refer to itself


def answer_fields(task: Task) -> tuple[str, ...]:
    """Return the fields of `task`, as dotted paths in the schema's order."""
    if task.schema is None:
        return (TEXT,)
    found = list(_leaves(task.schema, task.schema, "", frozenset(task.match)))
    missing = [path for path in task.match if path not in found]
    return (*(path for path in found if not _inside(path, missing)), *missing)


def _leaves(
    part: object, root: Mapping[str, Any], prefix: str, whole: frozenset[str]
) -> Iterator[str]:
    for name, inner in properties_of(part, root).items():
        path = f"{prefix}{name}"
        below = properties_of(inner, root) if "object" in types_of(inner, root) else {}
        if below and path not in whole and path.count(".") < _DEEPEST:
            yield from _leaves(inner, root, f"{path}.", whole)
        else:
            yield path


def _inside(path: str, others: list[str]) -> bool:
    return any(path.startswith(f"{other}.") for other in others)
