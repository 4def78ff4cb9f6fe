"""Check: an agent called only tools it had, with arguments that fit, and got every result.

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
    """Return the share of the tool calls in `context.messages` that are right.

    A call must name a tool of `context.tools`, fit its parameters and have a result. Calls in the
    last message cannot have a result yet. The share is 1 when no tool was called.
    """
    offered = {name: tool for name, tool in map(_definition, context.tools) if name}
    wrong: list[str] = []
    count = 0
    for at, message in enumerate(context.messages):
        calls = message.get("tool_calls") or ()
        unanswered = _unanswered(calls, context.messages[at + 1 :])
        for number, call in enumerate(calls):
            count += 1
            mistake = _mistake(call, offered) or ("has no result" if number in unanswered else "")
            if mistake:
                wrong.append(f"call {count}, {call['function']['name']}: {mistake}")
    if not wrong:
        return _FIT if count else _NONE
    return Verdict(1.0 - len(wrong) / count, "; ".join(wrong[:3]))


def _definition(tool: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return name and definition of a tool, in OpenAI's nested shape or flat."""
    inner = tool.get("function")
    definition = inner if isinstance(inner, Mapping) else tool
    return str(definition.get("name") or ""), definition


def _mistake(call: Mapping[str, Any], offered: Mapping[str, Mapping[str, Any]]) -> str:
    tool = offered.get(call["function"]["name"])
    if tool is None:
        return f"no such tool (offered: {', '.join(offered) or 'none'})"
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
    """Return which of `calls` have no tool message before the next turn.

    Calls and results are matched by id, or by order where there are no ids.
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
