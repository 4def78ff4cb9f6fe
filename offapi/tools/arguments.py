"""A call's arguments against its tool's schema. Left out: turning one type into another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offapi.checks.schema import schema_validator
from offapi.errors import nearest


def fault_of_arguments(function: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Return what is wrong with `arguments` of `function`, for the model; "" if nothing."""
    parameters = function.get("parameters") or {}
    name, known = function["name"], parameters.get("properties")
    if known is not None and not parameters.get("additionalProperties"):
        for given in arguments:
            if given not in known:
                return f"tool {name!r} has no argument {given!r}. {nearest(given, known)}"
    errors = schema_validator(_with_null(parameters)).iter_errors(dict(arguments))
    faults = [f"{'.'.join(map(str, each.instance_path))}: {each.message}" for each in errors]
    said = "; ".join(fault.removeprefix(": ") for fault in faults[:3])
    return f"the arguments of {name!r} do not fit: {said}." if said else ""


def _with_null(schema: Any) -> Any:
    """Write OpenAPI's `nullable`, as transformers does for `str | None`, as JSON schema has it."""
    if isinstance(schema, list):
        return [_with_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _with_null(value) for key, value in schema.items() if value is not True}
    kept = {key: True for key, value in schema.items() if value is True and key != "nullable"}
    whole = {**inner, **kept}
    return {"anyOf": [whole, {"type": "null"}]} if schema.get("nullable") is True else whole
