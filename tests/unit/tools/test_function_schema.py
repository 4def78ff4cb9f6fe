"""A function's schema: what the model is shown, and what is asked of the function's author."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

import offapi
from offapi.checks import Verdict
from offapi.errors import ConfigError
from offapi.task import Task, load_task
from offapi.tools.function_schema import schema_of

TASK = Task(
    name="t", instructions="Read.", schema=None, checks={"text": (lambda *_: Verdict(1.0, ""), 1.0)}
)  # fmt: skip


def search(
    query: str, state: offapi.EpisodeState, at_most: int = 5, by: Literal["name", "city"] = "name"
) -> list[str]:
    """Find vendors.

    Args:
        query: Part of the name.
        at_most: How many to return.
        by: What to search.
    """
    return []


async def fetch(id: str) -> dict[str, Any]:
    """Return one vendor.

    Args:
        id: Its number.
    """
    return {}


def test_the_schema_has_what_the_model_may_fill() -> None:
    task = replace(TASK, tools=(search, fetch))
    first, second = task.tool_schemas
    assert task.is_agent
    assert not TASK.is_agent
    assert first == {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Find vendors.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "Part of the name."},
                    "at_most": {"type": "integer", "description": "How many to return."},
                    "by": {
                        "type": "string",
                        "enum": ["name", "city"],
                        "description": "What to search.",
                    },
                },
                "required": ["query"],
            },
        },
    }
    assert second["function"]["name"] == "fetch"
    assert task.tool_schemas is task.tool_schemas
    assert TASK.tool_schemas == ()


def no_docstring(query: str) -> str:
    return query


def no_hint(query) -> str:  # type: ignore[no-untyped-def]
    """Find.

    Args:
        query: The name.
    """
    return ""


def no_argument(query: str, city: str) -> str:
    """Find.

    Args:
        query: The name.

    Returns:
        city: not a parameter's line.
    """
    return ""


def many(*names: str) -> str:
    """Find.

    Args:
        names: The names.
    """
    return ""


def nowhere(query: Vendor) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Find.

    Args:
        query: The vendor.
    """
    return ""


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (no_docstring, "task 't': tool 'no_docstring' has no docstring"),
        (no_hint, "task 't', tool 'no_hint', parameter 'query': it has no type hint."),
        (no_argument, "tool 'no_argument', parameter 'city': the docstring does not say"),
        (many, "tool 'many', parameter 'names': a model calls a tool by named arguments"),
        (nowhere, "tool 'nowhere': its type hints cannot be read: NameError"),
        (lambda query: query, "a tool must be a function with a name"),
        ("search", "which is not a function"),
    ],
)
def test_a_tool_that_says_too_little_is_refused_when_the_task_is_made(
    tool: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        replace(TASK, tools=(tool,))


def test_a_type_that_json_has_no_value_for_is_refused() -> None:
    def read(path: Path) -> str:
        """Read.

        Args:
            path: The file.
        """
        return ""

    with pytest.raises(ConfigError, match="tool 'read': it has no JSON schema"):
        schema_of(read)


class World:
    tools = ({"type": "function", "function": {"name": "look", "parameters": {}}},)


def test_an_environment_says_its_tools_itself() -> None:
    task = replace(TASK, environment=World)  # type: ignore[arg-type]
    assert task.tool_schemas == World.tools
    with pytest.raises(ConfigError, match="both given"):
        replace(task, tools=(search,))


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_turns", 0), ("max_turns", 2.0), ("tool_seconds", 0), ("max_tool_seconds", "5")],
)
def test_limits_are_numbers_above_zero(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"'t': {name} must be .* above 0"):
        replace(TASK, **{name: value})  # type: ignore[arg-type]


def test_the_prompt_shows_a_documents_opening() -> None:
    task = replace(TASK, opening=lambda text: text[:4])
    assert task.messages("page one, page two")[-1] == {"role": "user", "content": "page"}
    assert TASK.messages("page one")[-1]["content"] == "page one"
    for opening, said in (
        (lambda text: "", "not empty, got ''"),
        (lambda text: text[1 // 0], "raised Z"),
    ):
        with pytest.raises(ConfigError, match=f"task 't': opening .*{said}"):
            replace(TASK, opening=opening).messages("x")
    with pytest.raises(ConfigError, match="opening must be a function"):
        replace(TASK, opening="page")  # type: ignore[arg-type]


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two tools are named 'search'"):
        replace(TASK, tools=(search, search)).tool_schemas  # noqa: B018


def test_the_error_names_the_task_files_line(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(
        "import offapi\n\n\ndef find(name: str): pass\n\n"
        "task = offapi.Task(name='t', instructions='x', schema=None, tools=(find,),"
        " checks={'a': (lambda *_: 1.0, 1.0)})\n"
    )
    with pytest.raises(ConfigError, match=r"task.py, line 6.*'find' has no docstring"):
        load_task(file)
