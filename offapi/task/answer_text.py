"""An answer as JSON text, with exactly one spelling, so that there is one text to learn."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from offapi.checks.kinds import Match, kind_of
from offapi.checks.schema_types import alternatives, properties_of, types_of
from offapi.text.normalise import is_number


def spell(answer: Mapping[str, Any], schema: Mapping[str, Any], match: Mapping[str, Match]) -> str:
    """Return `answer` as JSON without spaces, fields in the schema's order, then others by name.

    Fields that `match` calls numbers, and numbers in its lists and objects, keep at least two
    decimals (128.50), as documents print amounts, unless the schema calls them integers.
    """
    amounts = [path for path, kind in match.items() if kind_of(kind).name in _HOLD_AMOUNTS]
    return _Spelling(schema).spell_object(answer, schema, amounts)


_HOLD_AMOUNTS = ("number", "list", "object")


@dataclass(frozen=True)
class _Spelling:
    root: Mapping[str, Any]  # the whole schema, which its parts may refer to

    def spell_object(
        self, value: Mapping[str, Any], schema: object, amounts: Collection[str]
    ) -> str:
        """Spell an object; `amounts` are the paths inside it whose numbers are amounts."""
        properties = properties_of(schema, self.root)
        names = [name for name in properties if name in value]
        names += sorted(set(value) - set(properties))
        spelled = [
            (name, self.spell_field(name, value[name], properties.get(name, {}), amounts))
            for name in names
        ]
        return "{" + ",".join(f"{_json(name)}:{text}" for name, text in spelled) + "}"

    def spell_field(
        self, name: str, value: object, schema: object, amounts: Collection[str]
    ) -> str:
        """Spell the field `name` of an object."""
        if name in amounts:
            return self.spell_value(value, schema)
        start = name + "."
        inner = [path.removeprefix(start) for path in amounts if path.startswith(start)]
        if inner and isinstance(value, Mapping):
            return self.spell_object(value, schema, inner)
        return _json(value)

    def spell_value(self, value: object, schema: object) -> str:
        """Spell a value whose numbers are all amounts."""
        if isinstance(value, list):
            items = [part.get("items") for part in alternatives(schema, self.root)]
            item_schema: object = next(filter(None, items), {})
            return "[" + ",".join(self.spell_value(item, item_schema) for item in value) + "]"
        if isinstance(value, Mapping):
            return self.spell_object(value, schema, value.keys())
        if not is_number(value):
            return _json(value)
        return _amount(value, whole=types_of(schema, self.root) == {"integer"})


def spell_value(value: object, *, amount: bool, whole: bool = False) -> str:
    """Return one value as `spell` writes it; `amount`: it stands where numbers are amounts.

    `whole`: the schema calls the number an integer.
    """
    return _amount(value, whole) if amount and is_number(value) else _json(value)


def _amount(value: float, whole: bool) -> str:
    if whole:
        return str(int(value)) if value == int(value) else _json(value)
    return f"{value:.2f}" if abs(value) < 1e15 and value == round(value, 2) else _json(value)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
