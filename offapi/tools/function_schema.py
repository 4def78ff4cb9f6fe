"""A typed function with a docstring as the JSON schema that a model is shown.

transformers writes the schema. Left out: parameters whose types JSON has no value for.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from offapi.errors import ConfigError, describe_error
from offapi.tools.episode_state import EpisodeState

Schema = Mapping[str, Any]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_function(tool: Callable[..., Any]) -> None:
    """Raise ConfigError where `tool` says too little for a schema, without importing anything."""
    name = getattr(tool, "__name__", "")
    if not _NAME.fullmatch(name):
        what = f"a tool must be a function with a name of letters and digits, got {tool!r}."
        raise ConfigError(what, next_step="Write it as `def search(query: str) -> str:`.")
    doc = inspect.getdoc(tool)
    if not doc:
        what = f"tool {name!r} has no docstring, which says to the model what it does."
        raise ConfigError(what, next_step='Add one: """Find vendors by name.""", then `Args:`.')
    hints = _hints(tool)
    for parameter in _parameters(tool):
        where = f"tool {name!r}, parameter {parameter.name!r}"
        if parameter.kind in _VARIADIC or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            what = "a model calls a tool by named arguments alone."
            raise ConfigError(what, where=where, next_step="Give each argument a name of its own.")
        if parameter.name not in hints:
            step = f"Write `{parameter.name}: str`, or its type."
            raise ConfigError("it has no type hint.", where=where, next_step=step)
        if hints[parameter.name] is EpisodeState:
            continue
        if not re.search(rf"^\s*{parameter.name}(\s*\([^()\n]*\))?:", _arguments(doc), re.M):
            step = f"Add a line `{parameter.name}: ...` under `Args:` in the docstring."
            raise ConfigError("the docstring does not say what it is.", where=where, next_step=step)


def schema_of(tool: Callable[..., Any]) -> Schema:
    """Return the schema of `tool` in OpenAI's shape, without its EpisodeState parameters.

    Raise ConfigError where a type cannot be written as JSON. transformers is imported here.
    """
    from transformers.utils.chat_template_utils import (
        DocstringParsingException,
        TypeHintParsingException,
        get_json_schema,
    )

    check_function(tool)
    name = getattr(tool, "__name__", "")
    try:
        schema = get_json_schema(_as_shown(tool))
    except (DocstringParsingException, TypeHintParsingException, ValueError) as error:
        what = f"it has no JSON schema: {describe_error(error)}"
        step = "Use str, int, float, bool, Literal, or lists and dicts of those."
        raise ConfigError(what, where=f"tool {name!r}", next_step=step) from None
    schema["function"].pop("return", None)  # few templates write it, and no model needs it
    return typing.cast(Schema, schema)


def state_parameters(tool: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the parameters that get the episode's state."""
    return tuple(name for name, hint in _hints(tool).items() if hint is EpisodeState)


def _as_shown(tool: Callable[..., Any]) -> Callable[..., Any]:
    """Return a stand-in with the name, docstring, and parameters that the model may fill."""

    def shown() -> None: ...

    hints = _hints(tool)
    offered = [each for each in _parameters(tool) if hints.get(each.name) is not EpisodeState]
    shown.__name__ = getattr(tool, "__name__", "")
    shown.__doc__ = inspect.getdoc(tool)
    shown.__annotations__ = {each.name: hints[each.name] for each in offered}
    shown.__signature__ = inspect.Signature(offered)  # type: ignore[attr-defined]
    return shown


def _hints(tool: Callable[..., Any]) -> dict[str, Any]:
    name = getattr(tool, "__name__", "")
    try:
        hints = typing.get_type_hints(inspect.unwrap(tool))
    except Exception as error:  # a name that does not exist, in words of the user's own
        what = f"its type hints cannot be read: {describe_error(error)}."
        step = "Import the types it names above it."
        raise ConfigError(what, where=f"tool {name!r}", next_step=step) from None
    hints.pop("return", None)
    return hints


def _parameters(tool: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    yield from inspect.signature(tool).parameters.values()


def _arguments(doc: str) -> str:
    """Return the docstring's block of arguments."""
    _, _, rest = doc.partition("Args:")
    return re.split(r"^(?:Returns|Raises):", rest, maxsplit=1, flags=re.M)[0]
