"""Whether a known answer may be learned: it fits the task's `match` and its schema.

Evaluation checks what it compares; a student learns every field, so all of them are checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import jsonschema_rs

from offapi.checks.schema import schema_validator
from offapi.checks.schema_types import alternatives, properties_of
from offapi.data.documents import KnownAnswer
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.task.task import Task
from offapi.text.display import plural

Learned = tuple[str, KnownAnswer]  # a document's id and its answer


def check_learned_answers(task: Task, answers: Iterable[Learned], path: Path, field: str) -> None:
    """Raise DataError, with file, line and field, at the first answer that must not be learned."""
    errors = [
        (id, error) for id, answer in answers if (error := answer_error(task, answer, id, field))
    ]
    if not errors:
        return
    id, error = errors[0]
    more = len(errors) - 1
    others = f" ({plural(more, 'more row')} with such a mistake)" if more else ""
    where = f"{jsonl.place_of(path, id)}, field {field!r}"
    what = f"document {id!r}: {error.what}{others}"
    raise DataError(what, where=where, next_step=error.next_step)


def answer_error(task: Task, answer: KnownAnswer, id: str, field: str) -> DataError | None:
    """Return why `answer` must not be learned; None if it may."""
    if isinstance(answer, Mapping) and not answer:
        step = "Write its fields, null where there is none, or remove the row."
        return DataError(f"{field} is empty.", next_step=step)
    try:
        task.check_gold(answer, row=id)
    except DataError as error:
        what = error.what.replace("gold", field, 1) if error.what.startswith("gold") else error.what
        return DataError(what, next_step=error.next_step)
    if task.schema is None or not isinstance(answer, Mapping):
        return None
    unknown = [name for name in answer if name not in properties_of(task.schema, task.schema)]
    if unknown and not _open(task):
        known = ", ".join(properties_of(task.schema, task.schema))
        step = "Remove it, or add it to the schema, so that answers have it on purpose."
        what = f"{field} has the field {unknown[0]!r}, which is not in the schema ({known})."
        return DataError(what, next_step=step)
    return _misfit(task, answer, field)


def _open(task: Task) -> bool:
    """Return whether the schema says that answers may have fields that it does not name."""
    schema = task.schema or {}
    said = [
        part.get("additionalProperties") or part.get("patternProperties")
        for part in alternatives(schema, schema)
    ]
    return any(said) or not properties_of(schema, schema)


def _misfit(task: Task, answer: Mapping[str, object], field: str) -> DataError | None:
    try:
        schema_validator(task.schema or {}).validate(dict(answer))
    except jsonschema_rs.ValidationError as error:
        place = ".".join(str(part) for part in error.instance_path)
        where = f"field {field}.{place}" if place else field
        step = "Correct the answer, or the schema: a student learns this text as it stands."
        return DataError(f"{where} does not fit the schema: {error.message}.", next_step=step)
    return None
