"""A worked example of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """A worked example, shown to a teacher before the document that it must answer for."""

    document: str
    answer: Mapping[str, Any]
