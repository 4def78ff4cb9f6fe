"""The messages and tools of a chat request, checked member by member.

Left out: content that is not text, and tools that are not functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from offapi.checks.schema import schema_validator
from offapi.serve.errors import wrong
from offapi.serve.limits import ServerLimits

ROLES = ("system", "developer", "user", "assistant", "tool")
_FUNCTION = re.compile(r"[a-zA-Z0-9_.-]{1,64}")  # OpenAI's rule, and MCP's dots
_MEMBERS = {"name", "description", "parameters", "strict"}
Message = Mapping[str, Any]


def read_messages(given: Sequence[Mapping[str, Any]], limits: ServerLimits) -> tuple[Message, ...]:
    """Return the messages of a request. Raise ApiError for anything else in them.

    A `tool` message must answer a call that an earlier message made.
    """
    if not 0 < len(given) <= limits.messages:
        why = f"'messages' must have from 1 to {limits.messages} entries."
        raise wrong("messages", why, "invalid_value")
    read: list[Message] = []
    open_calls: dict[str, str] = {}  # id -> name
    for at, each in enumerate(given):
        message = _message(f"messages[{at}]", each)
        if message["role"] == "tool":
            message = _named(f"messages[{at}].tool_call_id", message, open_calls)
        for call in message.get("tool_calls", ()):
            open_calls[call["id"]] = call["function"]["name"]
        read.append(message)
    return tuple(read)


def read_tools(
    given: Sequence[Mapping[str, Any]] | None, choice: object, limits: ServerLimits
) -> tuple[Mapping[str, Any], ...]:
    """Return the functions that the model may call; none where `tool_choice` is "none".

    Raise ApiError for a tool that is not a function, or whose parameters are not a JSON schema.
    """
    tools = given or ()
    if len(tools) > limits.tools:
        raise wrong("tools", f"'tools' must have at most {limits.tools} entries.", "invalid_value")
    read = tuple(_tool(f"tools[{at}]", each) for at, each in enumerate(tools))
    names = [tool["function"]["name"] for tool in read]
    if len(set(names)) < len(names):
        raise wrong("tools", "Two tools have one name.", "invalid_value")
    if choice not in (None, "auto", "none"):
        message = "'tool_choice' must be auto or none: a call cannot be forced."
        raise wrong("tool_choice", message, "unsupported_parameter")
    return () if choice == "none" else read


def _tool(place: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    function = given.get("function")
    if given.get("type") != "function" or not isinstance(function, dict):
        raise wrong(place, "Only tools of type 'function' are served.", "unsupported_parameter")
    if set(function) - _MEMBERS or function.get("strict"):
        message = "A function has a name, a description and parameters; 'strict' is not enforced."
        raise wrong(f"{place}.function", message, "unsupported_parameter")
    name, parameters = function.get("name"), function.get("parameters") or {"type": "object"}
    if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
        message = "A function's name must be 1 to 64 letters, digits, dots, dashes or underscores."
        raise wrong(f"{place}.function.name", message, "invalid_value")
    try:
        schema_validator(parameters)
    except (ValueError, TypeError):
        message = "A function's parameters must be a JSON schema."
        raise wrong(f"{place}.function.parameters", message, "invalid_value") from None
    description = function.get("description") or ""
    if not isinstance(description, str):
        message = "A function's description must be text."
        raise wrong(f"{place}.function.description", message, "invalid_type")
    kept = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": kept}


def _message(place: str, given: Mapping[str, Any]) -> Message:
    """Return one message as role, text and calls."""
    role, calls = given.get("role"), given.get("tool_calls") or ()
    if role not in ROLES:
        message = f"A message's role must be one of: {', '.join(ROLES)}."
        raise wrong(f"{place}.role", message, "invalid_value")
    if given.get("function_call") or (calls and role != "assistant"):
        message = "Only the assistant calls, and only by 'tool_calls'."
        raise wrong(f"{place}.tool_calls", message, "unsupported_parameter")
    content = given.get("content")
    if isinstance(content, list):
        content = _joined(f"{place}.content", content)
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise wrong(f"{place}.content", "A message's content must be text.", "invalid_type")
    kept: dict[str, Any] = {"role": role, "content": content}
    if calls:
        kept["tool_calls"] = [_call(f"{place}.tool_calls", each) for each in calls]
    if role == "tool":
        kept["tool_call_id"] = given.get("tool_call_id")
    return kept


def _call(place: str, given: object) -> Mapping[str, Any]:
    try:
        call = msgspec.convert(given, _Call)
        arguments = msgspec.json.decode(call.function.arguments or "{}")
    except msgspec.MsgspecError:
        arguments = None
    if not isinstance(arguments, dict):
        message = (
            "A call must be {'id', 'type': 'function', 'function': {'name', 'arguments'}}, its"
            " arguments a JSON object as text."
        )
        raise wrong(place, message, "invalid_value")
    function = {"name": call.function.name, "arguments": call.function.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _named(place: str, message: Message, open_calls: dict[str, str]) -> Message:
    """Return a tool's message with the tool's name, which some templates write."""
    name = open_calls.pop(str(message["tool_call_id"]), None)
    if name is None:
        raise wrong(place, "No earlier message made this call.", "invalid_value")
    return {**message, "name": name}


def _joined(place: str, parts: Sequence[Any]) -> str:
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise wrong(place, "Only parts of type 'text' are served.", "unsupported_parameter")
        texts.append(text)
    return "".join(texts)


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    id: str
    function: _Function
