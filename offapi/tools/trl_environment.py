"""Environments written for TRL's `environment_factory` (TRL 1.16), run as they are.

The public methods of what the factory returns are the tools, `reset` begins an episode, and
`get_reward`, where there is one, is the environment's score: see TRL's `GRPOTrainer`. Left out:
images, and a mapping of several environments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.tools.offered import KnownTools, Schemas, schemas_by_source
from offapi.tools.tool_environment import ToolEnvironment

_NOT_TOOLS = ("reset", "get_reward")


def from_trl(
    environment_factory: Callable[[], Any],
    columns: Mapping[str, Mapping[str, Any]] | None = None,
) -> KnownTools:
    """Return what `Task(environment=...)` takes, made from TRL's `environment_factory`.

    `reset` gets the columns of the dataset's row: `prompt`, and those of `columns` under the
    document's id. What its score compares with must be there: a document's gold never enters an
    episode's process. Raise ConfigError where the class has no `reset`, or a method no schema.
    """
    held = columns or {}

    def make(schemas: tuple[Schemas, ...]) -> TrlEnvironment:
        return TrlEnvironment(environment_factory(), schemas, held)

    return KnownTools(make, lambda: schemas_by_source(tools_of(environment_factory())))


def tools_of(instance: Any) -> tuple[Callable[..., Any], ...]:
    """Return the methods of a TRL environment that are tools, in TRL's order."""
    kind = type(instance)
    names = [name for name, _ in inspect.getmembers(kind, predicate=inspect.isfunction)]
    if "reset" not in names:
        what = f"{kind.__name__} has no method `reset`, which TRL's environments have."
        raise ConfigError(what, next_step="Add `def reset(self, **kwargs) -> str | None`.")
    tools = [name for name in names if name not in _NOT_TOOLS and not name.startswith("_")]
    return tuple(getattr(instance, name) for name in tools)


class TrlEnvironment(ToolEnvironment):
    """One episode of a TRL environment."""

    def __init__(
        self,
        instance: Any,
        schemas: tuple[Schemas, ...],
        columns: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Run the episode on `instance`; `columns` are those of the rows, by document."""
        super().__init__(tools_of(instance), schemas)
        self._instance, self._columns = instance, columns

    def reset(self, document: Document) -> Sequence[Mapping[str, Any]]:
        """Begin the episode; what TRL appends to the prompt is a message of the user here."""
        super().reset(document)
        prompt = [{"role": "user", "content": document.text}]
        said = self._instance.reset(**{"prompt": prompt, **self._columns.get(document.id, {})})
        return [{"role": "user", "content": said}] if said else []

    def score(self, messages: Sequence[Mapping[str, Any]]) -> float | None:
        """Return what `get_reward` does; None where there is none."""
        reward = getattr(self._instance, "get_reward", None)
        if reward is None:
            return None
        found = reward()
        if inspect.isawaitable(found):
            found = self.run_async(found)
        return None if found is None else float(found)
