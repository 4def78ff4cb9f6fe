"""What a tool returned as the text of its message. Left out: images and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from offapi.checks.agent_trace import ERROR
from offapi.text.display import plural
from offapi.tools.calls import MalformedCall, ToolCall

MOST_CHARACTERS = 8_000  # of one result


def result_text(value: object) -> str:
    """Return `value` as text: a string as it is, anything else as JSON; cut where it is long."""
    return cut(value if isinstance(value, str) else _json(value))


def cut(text: str) -> str:
    """Return the first MOST_CHARACTERS of `text`, and say so; half characters are replaced."""
    whole = len(text)
    if whole > MOST_CHARACTERS:
        count = plural(whole, "character")
        text = f"{text[:MOST_CHARACTERS]}\n[cut: the first {MOST_CHARACTERS:,} of {count}]"
    return text.encode("utf-8", "replace").decode()


def result_message(call: ToolCall, text: str) -> dict[str, Any]:
    """Return the message that answers `call`."""
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": text}


def error_message(call: ToolCall, what: str) -> dict[str, Any]:
    """Return the message that says why `call` failed."""
    return result_message(call, cut(f"{ERROR}{what}"))


def malformed_messages(malformed: Sequence[MalformedCall]) -> list[dict[str, Any]]:
    """Return a message for each call that could not be read; it names no call."""
    said = [cut(f"{ERROR}the call could not be read: {each.why}") for each in malformed]
    return [{"role": "tool", "content": text} for text in said]


def cut_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return messages of the user's own environment with their texts cut."""
    copies = [dict(message) for message in messages]
    for message in copies:
        if isinstance(message.get("content"), str):
            message["content"] = cut(message["content"])
    return tuple(copies)


def _json(value: object) -> str:
    options = orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, default=_plain, option=options).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump()
    if hasattr(value, "keys"):  # sqlite3.Row
        return {key: value[key] for key in value.keys()}  # noqa: SIM118
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)
