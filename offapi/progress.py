"""What a long task reports to the person who waits for it; `Output` of the commands is one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Advance(Protocol):
    """A function that takes the number of units done so far, and a short note."""

    def __call__(self, done: int, note: str = "") -> None: ...


class Progress(Protocol):
    """A reporter: lines for a person, and the progress of counted work."""

    def say(self, text: str = "") -> None: ...

    def progress(self, title: str, total: int | None = None) -> AbstractContextManager[Advance]: ...


def say_nothing(*values: object) -> None:
    """Ignore a report."""
    del values
