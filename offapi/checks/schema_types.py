"""What a JSON schema says about the field at a path: whether it is there, its types, its choices.

References inside the schema, `anyOf`, `oneOf` and `allOf` are followed. Left out: everything that
only a validator can decide (`offapi.checks.schema`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

JsonSchema = Mapping[str, Any]
_DEEPEST = 16  # references and alternatives inside each other
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TYPES |= {list: "array", dict: "object"}


def alternatives(part: object, root: JsonSchema, depth: int = 0) -> Iterator[JsonSchema]:
    """Yield `part` and every schema it refers to or combines."""
    if not isinstance(part, Mapping) or depth > _DEEPEST:
        return
    yield part
    if isinstance(reference := part.get("$ref"), str):
        yield from alternatives(_target(reference, root), root, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        for inner in part.get(name) or ():
            yield from alternatives(inner, root, depth + 1)


def properties_of(part: object, root: JsonSchema) -> dict[str, Any]:
    """Return the properties of an object's schema, in their order."""
    found: dict[str, Any] = {}
    for one in alternatives(part, root):
        found |= one.get("properties") or {}
    return found


def field_schema(schema: JsonSchema, path: str) -> object:
    """Return the schema of the field at `path`, {} where objects are free; None if there is none.

    A dot leads into an object, unless a property has the whole name.
    """
    properties = properties_of(schema, schema)
    if path in properties:
        return properties[path]
    part: object = schema
    for name in path.split("."):
        properties = properties_of(part, schema)
        if properties and name not in properties:
            return None
        part = properties.get(name, {})
    return part


def types_of(part: object, root: JsonSchema) -> frozenset[str]:
    """Return the JSON types that a field may have, without null; none where nothing is said."""
    found: set[str] = set()
    for one in alternatives(part, root):
        stated = one.get("type")
        found.update([stated] if isinstance(stated, str) else stated or ())
        if stated is None:
            found.update(_TYPES[type(value)] for value in _values(one))
    return frozenset(found - {"null"})


def choices_of(part: object, root: JsonSchema) -> tuple[Any, ...]:
    """Return the values that `enum` or `const` leave to a field; () where it is free."""
    found: list[Any] = []
    for one in alternatives(part, root):
        found += _values(one)
    return tuple(found)


def is_optional(schema: JsonSchema, path: str) -> bool:
    """Return whether the schema lists what its object requires, and `path` is not listed."""
    part: object = schema
    *parents, name = [path] if path in properties_of(schema, schema) else path.split(".")
    for parent in parents:
        if _optional(part, schema, parent):
            return True
        part = properties_of(part, schema).get(parent, {})
    return _optional(part, schema, name)


def _optional(part: object, root: JsonSchema, name: str) -> bool:
    lists: list[Any] = []
    for one in alternatives(part, root):
        lists += [one["required"]] if "required" in one else []
    return bool(lists) and not any(name in required for required in lists)


def _values(part: JsonSchema) -> Sequence[Any]:
    return [part["const"]] if "const" in part else part.get("enum") or ()


def _target(reference: str, root: JsonSchema) -> object:
    target: object = root
    for step in reference.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        target = target.get(step) if isinstance(target, Mapping) else None
    return target if reference.startswith("#") else None
