"""Definitions of the tools that a model was offered -> OpenAI's shape.

Left out, and named: tools that run at the provider (web search, code interpreter), and custom ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from offapi.data.importers.shared.loose_json import Json, first, obj, opened
from offapi.data.importers.shared.reasons import BAD_TOOLS, Unusable

KEPT = ("name", "description", "parameters", "strict")


def tool_definitions(tools: Json) -> tuple[list[Json], list[str]]:
    """Return the definitions in `tools`, and the kinds of those left out.

    Raise Unusable where `tools` are not definitions.
    """
    listed = opened(tools)
    if isinstance(listed, dict):  # Bedrock's toolConfig
        listed = listed.get("tools")
    if listed is None:
        return [], []
    if not isinstance(listed, list):
        raise Unusable(BAD_TOOLS)
    definitions, left_out = [], []
    for tool in _flat([opened(each) for each in listed]):
        kind = tool.get("type") or "function"
        if isinstance(tool.get("function"), dict):
            definitions.append(tool)
        elif isinstance(tool.get("name"), str) and (kind == "function" or "input_schema" in tool):
            definitions.append(_nested(tool))
        else:
            left_out.append(str(kind)[:60])
    return definitions, left_out


def _flat(listed: list[Json]) -> list[Mapping[str, Json]]:
    """Return the definitions one by one, without the wrappers of Gemini and of Bedrock."""
    flat: list[Mapping[str, Json]] = []
    for tool in listed:
        if not isinstance(tool, dict):
            raise Unusable(BAD_TOOLS)
        inner = first(tool, "functionDeclarations", "function_declarations")
        if isinstance(inner, list):
            flat += _flat(inner)
        elif isinstance(tool.get("toolSpec"), dict):
            spec = tool["toolSpec"]
            schema = obj(spec.get("inputSchema")).get("json")
            flat.append({**spec, "input_schema": schema})
        else:
            flat.append(tool)
    return flat


def _nested(tool: Mapping[str, Json]) -> dict[str, Json]:
    """Return a flat definition in the nested shape.

    Flat are legacy functions and the tools of the Responses API, OpenTelemetry and Anthropic.
    """
    schema = first(tool, "input_schema", "inputSchema", "parametersJsonSchema")
    flat = {**tool, **({} if schema is None else {"parameters": schema})}
    return {
        "type": "function",
        "function": {name: flat[name] for name in KEPT if flat.get(name) is not None},
    }
