"""An answer as JSON text, with exactly one spelling, so that there is one text to learn."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from offapi.checks.verdict import Match
from offapi.text.normalise import is_number


def spell(answer: Mapping[str, Any], schema: Mapping[str, Any], match: Mapping[str, Match]) -> str:
    """Return `answer` as JSON without spaces, fields in the schema's order, then others by name.

    Fields that `match` calls numbers, and numbers in its lists, keep at least two decimals
    (128.50), as documents print amounts, unless the schema calls them integers.
    """
    amounts = [name for name, kind in match.items() if kind in ("number", "list")]
    return _object(answer, schema, amounts)


def _object(value: Mapping[str, Any], schema: Mapping[str, Any], amounts: Collection[str]) -> str:
    properties: Mapping[str, Any] = schema.get("properties") or {}
    names = [name for name in properties if name in value]
    names += sorted(set(value) - set(properties))
    spelled = [
        (name, _value(value[name], properties.get(name, {}), name in amounts)) for name in names
    ]
    return "{" + ",".join(f"{_json(name)}:{text}" for name, text in spelled) + "}"


def _value(value: object, schema: Any, amounts: bool) -> str:
    if not amounts:
        return _json(value)
    schema = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, list):
        return "[" + ",".join(_value(item, schema.get("items"), True) for item in value) + "]"
    if isinstance(value, Mapping):
        return _object(value, schema, value.keys())
    return _amount(value, schema) if is_number(value) else _json(value)


def _amount(value: float, schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "integer":
        return str(int(value)) if value == int(value) else _json(value)
    return f"{value:.2f}" if abs(value) < 1e15 and value == round(value, 2) else _json(value)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
