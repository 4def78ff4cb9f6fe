"""Tools for a model whose template writes none: everything about them stands in plain text.

The system message lists the tools as JSON schemas, one a line, and says in one sentence how to
call. An assistant's calls are written into its text, and their results are a user's message. Left
out: reading the calls (`offapi.chat.tagged_calls`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from offapi.chat.messages import INSTRUCTING
from offapi.chat.tagged_calls import CLOSE, OPEN

HOW = (
    'To call a function, write <tool_call>{"name": "the function", "arguments": {...}}</tool_call>;'
    " its result follows between <tool_response> and </tool_response>."
)


def in_plain_text(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[Mapping[str, Any]]:
    """Return `messages` with tools, calls and results as text.

    The results of one turn are one message.
    """
    plain: list[Mapping[str, Any]] = []
    after_results = False
    for message in messages:
        role = message.get("role")
        if role == "tool":
            text = _result(message)
            if after_results:
                plain[-1] = {"role": "user", "content": f"{plain[-1]['content']}\n{text}"}
            else:
                plain.append({"role": "user", "content": text})
        elif role == "user" and after_results:  # some templates want users and assistants in turn
            text = str(message.get("content") or "")
            plain[-1] = {**message, "content": f"{plain[-1]['content']}\n{text}"}
        else:
            plain.append(_with_calls(message))
        after_results = role == "tool"
    return _with_tools(plain, tools) if tools else plain


def _with_tools(
    messages: list[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    listed = "\n".join(_json(tool.get("function") or tool) for tool in tools)
    text = f"You can call these functions:\n{listed}\n{HOW}"
    if messages and messages[0].get("role") in INSTRUCTING:
        first = messages[0]
        return [{**first, "content": f"{first.get('content') or ''}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _with_calls(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if not message.get("tool_calls"):
        return message
    calls = [call["function"] for call in message["tool_calls"]]
    texts = [f"{OPEN}{_json(_call(function))}{CLOSE}" for function in calls]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    content = str(message.get("content") or "")
    return {**rest, "content": "\n".join(([content] if content else []) + texts)}


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    value = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    return {"name": function["name"], "arguments": value or {}}


def _result(message: Mapping[str, Any]) -> str:
    """Return a result between its tags, which a result cannot close itself."""
    text = str(message.get("content") or "").replace("</tool_response>", "< /tool_response>")
    return f"<tool_response>\n{text}\n</tool_response>"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
