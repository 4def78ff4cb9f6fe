"""Definitions of the tools that a model was offered -> OpenAI's shape.

Left out, and named: tools that run at the provider (web search, code interpreter), and custom ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared.loose_json import Json, opened
from offapi.data.importers.shared.reasons import BAD_TOOLS, Unusable

KEPT = ("name", "description", "parameters", "strict")


def tool_definitions(tools: Json) -> tuple[list[Json], list[str]]:
    """Return the definitions in `tools`, and the kinds of those left out.

    Raise Unusable where `tools` are not definitions.
    """
    listed = opened(tools)
    if listed is None:
        return [], []
    if not isinstance(listed, list):
        raise Unusable(BAD_TOOLS)
    definitions, left_out = [], []
    for tool in map(opened, listed):
        if not isinstance(tool, dict):
            raise Unusable(BAD_TOOLS)
        kind = tool.get("type") or "function"
        if isinstance(tool.get("function"), dict):
            definitions.append(tool)
        elif isinstance(tool.get("name"), str) and (kind == "function" or "input_schema" in tool):
            definitions.append(_nested(tool))
        else:
            left_out.append(str(kind)[:60])
    return definitions, left_out


def _nested(tool: Mapping[str, Json]) -> dict[str, Json]:
    """Return a flat definition in the nested shape.

    Flat are legacy functions and the tools of the Responses API, OpenTelemetry and Anthropic.
    """
    schema = {"parameters": tool["input_schema"]} if "input_schema" in tool else {}
    flat = {**tool, **schema}
    return {
        "type": "function",
        "function": {name: flat[name] for name in KEPT if flat.get(name) is not None},
    }
