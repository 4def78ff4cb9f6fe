"""Chat messages as templates want them: arguments as objects, no thinking, no system role."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from offapi.errors import DataError
from offapi.text.thinking import strip_thinking


def with_argument_objects(id: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `message` with its calls' arguments as objects, which templates write as JSON."""
    return _with_arguments(id, message, lambda text, value: value)


def with_argument_texts(id: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `message` with its calls' arguments as JSON text, for templates that join it."""
    return _with_arguments(id, message, lambda text, value: text)


def with_some_text(id: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `message` with arguments as objects, and with a text, "" where it has none.

    Some templates know a turn without any text for a turn without `content`, others for an error.
    """
    objects = with_argument_objects(id, message)
    return (
        {**objects, "content": objects.get("content") or ""} if "tool_calls" in objects else objects
    )


# How a template may want calls, in the order in which it is tried.
SPELLINGS = (with_argument_objects, with_argument_texts, with_some_text)


def _with_arguments(
    id: str, message: Mapping[str, Any], chosen: Callable[[str, Any], Any]
) -> Mapping[str, Any]:
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        text = call["function"]["arguments"] or "{}"
        try:
            value = json.loads(text)
        except ValueError as error:
            step = "Drop the row (a check such as `tool_calls_fit` does), or fix the arguments."
            raise DataError(
                f"row {id!r}: a tool call's arguments are not JSON: {error}.", next_step=step
            ) from None
        calls.append({**call, "function": {**call["function"], "arguments": chosen(text, value)}})
    return {**message, "tool_calls": calls}


def without_thinking(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `message` without `reasoning_content` and without a leading `<think>` block."""
    if message.get("role") != "assistant":
        return message
    rest = {key: value for key, value in message.items() if key != "reasoning_content"}
    if isinstance(rest.get("content"), str):
        rest["content"] = strip_thinking(rest["content"])
    return rest


INSTRUCTING = ("system", "developer")  # templates have both roles or neither


def system_in_front(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return `messages` for a template without a system role.

    The system text begins the first user message, or becomes a user message. What happens to the
    first messages does not depend on those after the first assistant message.
    """
    count = next(
        (i for i, message in enumerate(messages) if message.get("role") not in INSTRUCTING),
        len(messages),
    )
    text = "\n\n".join(str(message.get("content") or "") for message in messages[:count])
    rest = list(messages[count:])
    if count and rest and rest[0].get("role") == "user":
        return [{**rest[0], "content": f"{text}\n\n{rest[0].get('content') or ''}"}, *rest[1:]]
    return [{"role": "user", "content": text}, *rest] if count else rest
