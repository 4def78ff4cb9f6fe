"""All checks as a task file writes them, each with the first sentence of its docstring.

Left out: how they are made, which their docstrings say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from offapi import checks
from offapi.teachers.judge import judge


@dataclass(frozen=True)
class ExplainedCheck:
    """A check: how it is written, what its score means, and all that is said of it."""

    name: str
    call: str
    meaning: str
    doc: str


def explained_checks() -> list[ExplainedCheck]:
    """Return every check that offapi comes with, by name, a judge at the end."""
    functions = [getattr(checks, name) for name in checks.__all__]
    named = [function for function in functions if inspect.isfunction(function)]
    return [_explained(function, function.__name__) for function in named] + [
        _explained(judge, "offapi.judge")
    ]


def _explained(function: Callable[..., Any], name: str) -> ExplainedCheck:
    parameters = list(inspect.signature(function).parameters.values())
    plain = [parameter.name for parameter in parameters] == ["document", "answer", "context"]
    shown = [_shown(parameter) for parameter in parameters]
    call = name if plain else f"{name}({', '.join(shown)})"
    first = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    meaning = first.removeprefix("Return a check: ").removeprefix("Return ")
    meaning = meaning.replace("`context.schema`", "the task's schema")
    return ExplainedCheck(name, call, meaning, inspect.getdoc(function) or "")


def _shown(parameter: inspect.Parameter) -> str:
    """Return a parameter with its default, without its type."""
    star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else ""
    default = "" if parameter.default is inspect.Parameter.empty else f"={parameter.default!r}"
    return f"{star}{parameter.name}{default}"
