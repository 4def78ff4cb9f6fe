"""Check a task's tools, environment and limits. Left out: what needs transformers' schemas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from offapi.errors import ConfigError
from offapi.text.normalise import is_number
from offapi.tools.function_schema import check_function
from offapi.tools.mcp_server import McpServer

if TYPE_CHECKING:
    from offapi.task.task import Task


def validate_tools(task: Task) -> None:
    """Raise ConfigError at the first of the agent's parts of `task` that is wrong."""
    if not isinstance(task.tools, tuple):
        step = "Write `tools=(search_vendors,)`."
        raise _wrong(task, f"tools must be a tuple of functions, got {task.tools!r}", step)
    if task.environment is not None:
        if task.tools:
            step = "Let the environment's `tools` name them all, or leave it out."
            raise _wrong(task, "tools and environment are both given", step)
        if not callable(task.environment):
            what = f"environment must be a class or a function, got {task.environment!r}"
            raise _wrong(task, what, "Give what makes an environment, often its class.")
    for tool in task.tools:
        if isinstance(tool, McpServer):
            continue
        if not callable(tool):
            raise _wrong(task, f"tools has {tool!r}, which is not a function", "Give a function.")
        try:
            check_function(tool)
        except ConfigError as error:
            where = f"task {task.name!r}" + (f", {error.where}" if error.where else "")
            raise ConfigError(error.what, where=where, next_step=error.next_step) from None
    if task.opening is not None and not callable(task.opening):
        step = "Write a function of the document's text."
        raise _wrong(task, f"opening must be a function, got {task.opening!r}", step)
    turns = task.max_turns
    if isinstance(turns, bool) or not isinstance(turns, int) or turns < 1:
        what = f"max_turns must be a whole number above 0, got {turns!r}"
        raise _wrong(task, what, "Count the turns in which the model calls, and its answer.")
    for name in ("tool_seconds", "max_tool_seconds"):
        seconds = getattr(task, name)
        if not is_number(seconds) or not 0 < seconds < math.inf:
            what = f"{name} must be a number of seconds above 0, got {seconds!r}"
            raise _wrong(task, what, f"Write `{name}=10.0`.")


def _wrong(task: Task, what: str, next_step: str) -> ConfigError:
    return ConfigError(f"task {task.name!r}: {what}.", next_step=next_step)
