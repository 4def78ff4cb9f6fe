"""Which fields of a task a document binds, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from offapi.checks.kinds import kind_of
from offapi.checks.schema_types import types_of
from offapi.task import Task
from offapi.task.bind import Bind, OneOf, Quote, quoted_in

Level = Literal["off", "schema", "source", "register"]
LEVELS: tuple[Level, ...] = ("off", "schema", "source", "register")
Binding = Literal["quote", "number", "date"] | OneOf


@dataclass(frozen=True)
class BoundFields:
    """The bound fields of `task` at `level`."""

    task: Task
    level: Level

    @cached_property
    def declared(self) -> Mapping[str, Bind]:
        """The declarations of the task and of its schema, by path."""
        return {**dict.fromkeys(quoted_in(self.task.schema or {}), Quote()), **self.task.bind}

    def at(self, path: str, part: Mapping[str, Any]) -> Binding | None:
        """Return what binds the string or number at `path`; None: the schema alone."""
        if self.level not in ("source", "register"):
            return None
        bound = self.declared.get(path)
        if isinstance(bound, OneOf):
            return bound if self.level == "register" else None
        if bound is not None:
            return "quote"
        return self._read(path, part)

    def _read(self, path: str, part: Mapping[str, Any]) -> Binding | None:
        """Return the kind that `match` gives to a field, or to a leaf of a list or object."""
        match = self.task.match.get(path)
        kind = kind_of(match).name if match is not None else None
        if kind in ("number", "date"):
            return kind
        if match is not None or not self._inside(path):
            return None
        types = types_of(part, self.task.schema or {})
        if types and types <= {"number", "integer"}:
            return "number"
        return "date" if types == {"string"} and part.get("format") == "date" else None

    def _inside(self, path: str) -> bool:
        """Return whether `path` is inside a list or object that `match` compares as a whole."""
        for outer, match in self.task.match.items():
            inner = path.startswith((outer + ".", outer + "[]"))
            if inner and kind_of(match).name in ("list", "object"):
                return True
        return False

    def amounts(self, path: str) -> bool:
        """Return whether numbers at `path` are spelled as amounts, as `Task.answer_text` does."""
        match = self.task.match.get(path)
        return (match is not None and kind_of(match).name == "number") or self._inside(path)

    @property
    def candidates(self) -> str | None:
        """The first field, in the order of the declarations, whose runner-ups are worth reading."""
        for path, bound in self.declared.items():
            if "[]" not in path and (isinstance(bound, Quote) or self.level == "register"):
                return path
        return None
