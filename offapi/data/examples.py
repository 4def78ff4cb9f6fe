"""Examples: chats to learn from, JSONL rows `{"id", "messages": [...], "tools"?: [...]}` of OpenAI's shape.

Left out: images and other content that is not text; grades and sources (not yet).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi.data import jsonl
from offapi.errors import DataError, nearest

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class ChatExample:
    """One chat. `tools` are the definitions the model was offered, if any."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] | None = None


def read(path: Path) -> list[ChatExample]:
    """The chats in a JSONL file; DataError, with file, line, field and next step, for anything else."""
    rows = jsonl.read(path)
    jsonl.unique_ids(rows)
    return [_example(row) for row in rows]


def write(path: Path, examples: Iterable[ChatExample]) -> None:
    """Write `examples` as JSONL that `read` gives back, the file whole or not at all."""
    jsonl.write(path, map(as_row, examples))


def as_row(example: ChatExample) -> dict[str, Any]:
    """`example` as a JSONL row."""
    row: dict[str, Any] = {"id": example.id, "messages": list(example.messages)}
    return row if example.tools is None else {**row, "tools": list(example.tools)}


def _example(row: jsonl.Row) -> ChatExample:
    messages, tools = row.required("messages", list), row.optional("tools", list)
    for i, message in enumerate(messages):
        _check_message(row, f"messages[{i}]", message)
    if not any(message["role"] == "assistant" for message in messages):
        step = "Add an assistant message, or remove the row: there is nothing to learn from it."
        raise row.error("no message is the assistant's.", "messages", step)
    for i, tool in enumerate(tools or ()):
        if not isinstance(tool, dict):
            raise row.error("must be an object.", f"tools[{i}]", "Write a tool definition of OpenAI's shape.")
    return ChatExample(row.required("id", str), tuple(messages), tuple(tools) if tools is not None else None)


def _check_message(row: jsonl.Row, where: str, message: object) -> None:
    if not isinstance(message, dict):
        raise row.error("must be an object.", where, 'Write {"role": ..., "content": ...}.')
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in ROLES:
        raise row.error(f"{role!r} is not a role.", f"{where}.role", nearest(str(role), ROLES))
    if calls is not None and role != "assistant":
        raise row.error(f"only the assistant calls tools, not {role!r}.", f"{where}.tool_calls", "Correct this row.")
    if content is None and calls:
        _check_calls(row, f"{where}.tool_calls", calls)
        return
    if not isinstance(content, str):
        kind = "missing" if content is None else f"a {type(content).__name__}"
        raise row.error(f"must be a text, is {kind}.", f"{where}.content", "Only text can be learned; put it there.")
    if calls:
        _check_calls(row, f"{where}.tool_calls", calls)


def _check_calls(row: jsonl.Row, where: str, calls: object) -> None:
    error: DataError = row.error(
        'each call must be {"type": "function", "function": {"name": TEXT, "arguments": JSON TEXT}}.',
        where,
        "Correct this row.",
    )
    if not isinstance(calls, list):
        raise error
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise error
        if not isinstance(function.get("arguments"), str):
            raise error
