"""What a long piece of work reports to whoever waits for it.

The command line's `Output` is one of these.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Advance(Protocol):
    """Called with how many units are done so far, and a short note."""

    def __call__(self, done: int, note: str = "") -> None: ...


class Progress(Protocol):
    """Sentences for a person, and the progress of something counted."""

    def say(self, text: str = "") -> None: ...

    def progress(self, title: str, total: int | None = None) -> AbstractContextManager[Advance]: ...


def say_nothing(*values: object) -> None:
    """Take a report that nobody waits for."""
    del values
