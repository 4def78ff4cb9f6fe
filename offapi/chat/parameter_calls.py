"""Calls with a tag for each argument: Qwen 3.5, Qwen 3 Coder, Nemotron 3.

`<tool_call><function=find><parameter=q>x</parameter></function></tool_call>`, each tag on a line of
its own. Values are bare text, so the tool's schema says what they are. Left out: a value that its
schema does not allow, which stays text for the environment to refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.chat.found_calls import CUT_OFF, FoundCall, checked

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_END = re.compile(r"\s*</function>\s*</tool_call>")
_PYTHON = {"True": True, "False": False, "None": None}


@dataclass(frozen=True)
class ParameterCalls:
    """The reader of calls whose arguments have tags."""

    name: str = "qwen-xml"

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """See `CallReader.find`."""
        found: list[FoundCall] = []
        at = text.find(OPEN)
        while at >= 0:
            found.append(_one(text, at, tools))
            at = text.find(OPEN, found[-1].end)
        return found


def _one(text: str, begin: int, tools: Sequence[Mapping[str, Any]]) -> FoundCall:
    named = _FUNCTION.match(text, begin + len(OPEN))
    if named is None:
        return _broken(text, begin, "<function=NAME> must follow <tool_call>")
    name, at = named[1].strip(), named.end()
    schemas = _schemas(name, tools)
    arguments: dict[str, Any] = {}
    while parameter := _PARAMETER.match(text, at):
        key = parameter[1].strip()
        arguments[key] = _value(parameter[2], schemas.get(key))
        at = parameter.end()
    end = _END.match(text, at)
    if end is None:
        return _broken(text, begin, "</function> and </tool_call> must follow the parameters")
    return checked(FoundCall(begin, end.end(), name, arguments))


def _broken(text: str, begin: int, why: str) -> FoundCall:
    closing = text.find(CLOSE, begin)
    if closing < 0:
        opening = text.find(OPEN, begin + len(OPEN))
        return FoundCall(begin, opening if opening >= 0 else len(text), why=CUT_OFF)
    return FoundCall(begin, closing + len(CLOSE), why=why)


def _schemas(name: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    functions = [tool.get("function") or tool for tool in tools]
    parameters = next((each.get("parameters") for each in functions if each["name"] == name), None)
    return (parameters or {}).get("properties") or {}


def _value(text: str, schema: object) -> Any:
    """Return what a bare text is by its schema; the text where that does not say, or not fit."""
    types = _types(schema)
    if not types or types == {"string"}:
        return text
    if text.strip() in ("null", "None") and "null" in types:
        return None
    if "string" in types:
        return text
    if text.strip() in _PYTHON:
        return _PYTHON[text.strip()]
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except (ValueError, RecursionError):
        return text


def _types(schema: object) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    types = {named} if isinstance(named, str) else set(named or ())
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        types |= _types(one)
    return types
