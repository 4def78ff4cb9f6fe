"""A worked example of a task."""

from __future__ import annotations

from dataclasses import dataclass

from offapi.data.documents import KnownAnswer


@dataclass(frozen=True)
class Example:
    """A worked example, shown to a teacher before the document that it must answer for."""

    document: str
    answer: KnownAnswer  # an object of fields; a text where the task answers with text
