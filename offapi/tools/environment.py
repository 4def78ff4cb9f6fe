"""The protocol of what an agent acts in. Plain tools are its default (`ToolEnvironment`).

An environment lives in a process of its own for one episode. Left out: tokens and templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from offapi.data.documents import Document
from offapi.tools.calls import Observation, Turn


class Environment(Protocol):
    """One episode's world. A task names a callable that makes one, often the class itself."""

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """The tools offered, as JSON schemas of OpenAI's shape; the same for every episode."""
        ...

    def reset(self, document: Document) -> Sequence[Mapping[str, Any]]:
        """Begin the episode of `document`, whose gold is withheld.

        Return messages to append after the task's own; mostly none.
        """
        ...

    def step(self, turn: Turn) -> Observation:
        """Answer a turn that is not final. What a tool raises is an observation, not an error."""
        ...

    def score(self, messages: Sequence[Mapping[str, Any]]) -> float | None:
        """Return the finished episode's reward; None leaves it to the task's checks or reward."""
        ...

    def close(self) -> None:
        """Undo what the episode has set up."""
        ...
