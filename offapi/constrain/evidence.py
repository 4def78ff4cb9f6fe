"""Where in the document a field's value stands: the evidence for an answer.

Left out: which of several places is meant; the first is as good as any.
"""

from __future__ import annotations

from offapi.checks.kinds import KindName, kind_of
from offapi.checks.places import Span, where
from offapi.task import Task
from offapi.text.normalise import is_number, iso_date

_NOT_PRINTED = ("boolean", "choice", "fuzzy")  # kinds whose values are not looked for


def places(task: Task, field: str, value: object, document: str) -> tuple[Span, ...]:
    """Return the spans of `document`, in characters, that print the value of `field`.

    () where it is null, printed nowhere, or of a kind that documents do not print. `field` is a
    path as in `match`; a list or object has none of its own, only its leaves have.
    """
    match = task.match.get(field)
    kind = kind_of(match).name if match is not None else _kind(value)
    return () if kind in _NOT_PRINTED else where(kind, value, document)


def _kind(value: object) -> KindName:
    if is_number(value):
        return "number"
    return "date" if isinstance(value, str) and iso_date(value) else "text"
