"""The tools that a task offers, as JSON schemas. Left out: calling them (`tool_environment`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from offapi.errors import ConfigError, OffapiError, error_sentence
from offapi.tools.environment import Environment
from offapi.tools.function_schema import schema_of
from offapi.tools.mcp_server import McpSource

Schemas = tuple[Mapping[str, Any], ...]
ToolSource = Callable[..., Any] | McpSource


class KnownTools:
    """A maker of environments whose tools are asked for once, not in each episode's process.

    Give it to `Task(environment=...)`.
    """

    def __init__(
        self,
        make: Callable[[tuple[Schemas, ...]], Environment],
        ask: Callable[[], tuple[Schemas, ...]],
    ) -> None:
        """Make environments by `make`, given what `ask` returns: the schemas by source."""
        self._make, self._ask = make, ask
        self._known: tuple[Schemas, ...] | None = None

    def by_source(self) -> tuple[Schemas, ...]:
        """Return the tools' schemas, by what offers them."""
        if self._known is None:
            self._known = self._ask()
        return self._known

    def prepare(self, known: tuple[Schemas, ...]) -> None:
        """Take `known` for the tools."""
        self._known = known

    def __call__(self) -> Environment:
        """Make one episode's environment."""
        return self._make(self.by_source())


def schemas_of(
    tools: Sequence[ToolSource], environment: Callable[[], Environment] | None, where: str
) -> Schemas:
    """Return the schemas of `tools`, or of what `environment` makes; `where` is named in errors.

    Raise ConfigError where one cannot be had, or two tools have one name.
    """
    grouped = schemas_by_source(tools)
    found = of_environment(environment, where) if environment else tuple(chain(*grouped))
    names = [tool_name(schema, where) for schema in found]
    for name in names:
        if names.count(name) > 1:
            step = "Give each tool a name of its own."
            raise ConfigError(f"two tools are named {name!r}.", where=where, next_step=step)
    return found


def schemas_by_source(tools: Sequence[ToolSource]) -> tuple[Schemas, ...]:
    """Return the schemas that each of `tools` offers: a function one, a server those it lists."""
    return tuple(
        source.schemas() if isinstance(source, McpSource) else (schema_of(source),)
        for source in tools
    )


def tool_name(schema: Mapping[str, Any], where: str) -> str:
    """Return the name of the tool with that schema; raise ConfigError where it has none."""
    function = schema.get("function") if isinstance(schema, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if isinstance(name, str) and name:
        return name
    step = 'Write {"type": "function", "function": {"name": ..., "parameters": {...}}}.'
    raise ConfigError("a tool's schema has no name.", where=where, next_step=step)


def of_environment(environment: Callable[[], Environment], where: str) -> Schemas:
    """Return the schemas of an environment; one is made for it where its class has none."""
    if isinstance(environment, KnownTools):
        return tuple(chain(*environment.by_source()))
    stated = getattr(environment, "tools", None)
    if isinstance(stated, list | tuple):
        return tuple(stated)
    try:
        made = environment()
        tools = tuple(made.tools)
    except OffapiError:
        raise
    except Exception as error:
        what = f"the environment cannot be made: {error_sentence(error)}"
        raise ConfigError(what, where=where, next_step="Fix it, or its `tools`.") from error
    return tools
