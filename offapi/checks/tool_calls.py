"""Check: an agent called only tools it had, with
arguments that fit them, and every call was answered.

Left out: whether a call was wise, and whether its result was used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema_rs

from offapi.checks.schema import schema_validator
from offapi.checks.verdict import Answer, Context, Verdict, parse

_NONE = Verdict(1.0, "no tool was called")
_FIT = Verdict(1.0, "every tool call fits and is answered")


def tool_calls_fit(document: str, answer: Answer, context: Context) -> Verdict:
    """Share of the tool calls in `context.messages` that
    name a tool of `context.tools`, fit it and have a result.

    Calls in the last message cannot have a result yet. 1 where nothing was called.
    """
    offered = {name: tool for name, tool in map(_definition, context.tools) if name}
    wrong: list[str] = []
    count = 0
    for at, message in enumerate(context.messages):
        calls = message.get("tool_calls") or ()
        unanswered = _unanswered(calls, context.messages[at + 1 :])
        for number, call in enumerate(calls):
            count += 1
            said = _mistake(call, offered) or ("has no result" if number in unanswered else "")
            if said:
                wrong.append(f"call {count}, {call['function']['name']}: {said}")
    if not wrong:
        return _FIT if count else _NONE
    return Verdict(1.0 - len(wrong) / count, "; ".join(wrong[:3]))


def _definition(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and definition of a tool, in OpenAI's nested shape or flat."""
    inner = tool.get("function")
    found = inner if isinstance(inner, Mapping) else tool
    return str(found.get("name") or ""), found


def _mistake(call: Mapping[str, Any], offered: Mapping[str, Mapping[str, Any]]) -> str:
    tool = offered.get(call["function"]["name"])
    if tool is None:
        return f"no such tool among {', '.join(offered) or 'none'}"
    arguments = parse(call["function"]["arguments"] or "{}")
    if arguments.value is None:
        return f"arguments are {arguments.error}"
    schema = tool.get("parameters")
    if not isinstance(schema, Mapping):
        return ""
    try:
        schema_validator(schema).validate(arguments.value)
    except jsonschema_rs.ValidationError as error:
        where = ".".join(str(part) for part in error.instance_path)
        return f"argument {where!r}: {error.message}" if where else error.message
    return ""


def _unanswered(calls: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> set[int]:
    """Which of `calls` have no tool message before the
    next turn: by id, or by order where there are no ids.
    """
    if not after:
        return set()
    results: list[Any] = []
    for message in after:
        if message["role"] != "tool":
            break
        results.append(message.get("tool_call_id"))
    if all(call.get("id") for call in calls) and all(results):
        return {number for number, call in enumerate(calls) if call["id"] not in results}
    return set(range(len(results), len(calls)))
