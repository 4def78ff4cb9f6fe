"""Whether a chat template wrote what a chat holds: tools, their calls, and thinking.

Many templates drop what they do not know, without an error. Left out: the text of messages, which
every template writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from offapi.text.thinking import inside_thinking

Harmless = Callable[[Any], Any]


def unwritten_tool(tools: Sequence[Mapping[str, Any]], text: str) -> str:
    """Return the name of the first of `tools`, made harmless, that `text` lacks; "" if none."""
    names = [str((tool.get("function") or tool).get("name") or "") for tool in tools]
    return next((name for name in names if name not in text), "")


def unwritten_call(message: Mapping[str, Any], turn: str, harmless: Harmless) -> str:
    """Return the name of a call of `message` that `turn` lacks, or an argument of it; else ""."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    times = Counter(str(function["name"]) for function in functions)
    for name, count in times.items():
        if turn.count(harmless(name)) < count:
            return name
    for function in functions:
        arguments = function.get("arguments")
        keys = arguments if isinstance(arguments, Mapping) else ()
        if any(harmless(str(key)) not in turn for key in keys):
            return str(function["name"])
    return ""


def thinking_of(message: Mapping[str, Any]) -> str:
    """Return an assistant's thinking, in a field of its own or before its text; "" without any."""
    apart = message.get("reasoning_content")
    if isinstance(apart, str) and apart.strip():
        return apart.strip()
    content = message.get("content")
    return inside_thinking(content) if isinstance(content, str) else ""


def drops_thinking(message: Mapping[str, Any], turn: str, harmless: Harmless) -> bool:
    """Return whether `message` has thinking that `turn` lacks."""
    return bool(harmless(thinking_of(message)) not in turn)
