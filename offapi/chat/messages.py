"""Chat messages as templates want them: calls'
arguments as objects, thinking dropped, no system role.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from offapi.data.traces import strip_thinking
from offapi.errors import DataError


def with_argument_objects(id: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """`message` with its calls' arguments as objects: templates write them as JSON themselves."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        try:
            arguments = json.loads(call["function"]["arguments"] or "{}")
        except ValueError as error:
            step = "Drop the row (a check such as `tool_calls_fit` does), or mend the arguments."
            raise DataError(
                f"row {id!r}: a tool call's arguments are not JSON: {error}.", next_step=step
            ) from None
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}


def without_thinking(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """`message` without `reasoning_content`, and without a `<think>` block before its text."""
    if message.get("role") != "assistant":
        return message
    rest = {key: value for key, value in message.items() if key != "reasoning_content"}
    if isinstance(rest.get("content"), str):
        rest["content"] = strip_thinking(rest["content"])
    return rest


INSTRUCTING = ("system", "developer")  # a template without the one has not the other


def system_in_front(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`messages` for a template without a system role: its
    text begins the first user message, or is one of its own.

    What becomes of the first messages does not depend on those after the first assistant's.
    """
    count = next(
        (i for i, one in enumerate(messages) if one.get("role") not in INSTRUCTING), len(messages)
    )
    text = "\n\n".join(str(one.get("content") or "") for one in messages[:count])
    rest = list(messages[count:])
    if count and rest and rest[0].get("role") == "user":
        return [{**rest[0], "content": f"{text}\n\n{rest[0].get('content') or ''}"}, *rest[1:]]
    return [{"role": "user", "content": text}, *rest] if count else rest
