"""Definitions of the tools a model was offered -> OpenAI's shape.

Left out, and named: tools that run at the provider (web search, code interpreter), and custom ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared.loose_json import Json, opened
from offapi.data.importers.shared.reasons import BAD_TOOLS, Unusable

KEPT = ("name", "description", "parameters", "strict")


def tool_definitions(tools: Json) -> tuple[list[Json], list[str]]:
    """The definitions in `tools`, and the kinds of those left out; Unusable where they are none."""
    found = opened(tools)
    if found is None:
        return [], []
    if not isinstance(found, list):
        raise Unusable(BAD_TOOLS)
    made, left_out = [], []
    for tool in map(opened, found):
        if not isinstance(tool, dict):
            raise Unusable(BAD_TOOLS)
        kind = tool.get("type") or "function"
        if isinstance(tool.get("function"), dict):
            made.append(tool)
        elif isinstance(tool.get("name"), str) and (kind == "function" or "input_schema" in tool):
            made.append(_nested(tool))
        else:
            left_out.append(str(kind)[:60])
    return made, left_out


def _nested(tool: Mapping[str, Json]) -> dict[str, Json]:
    """A flat definition: a legacy function, one of the
    Responses API or OpenTelemetry, or Anthropic's.
    """
    schema = {"parameters": tool["input_schema"]} if "input_schema" in tool else {}
    flat = {**tool, **schema}
    return {
        "type": "function",
        "function": {name: flat[name] for name in KEPT if flat.get(name) is not None},
    }
