"""The JSON schema of answers, from the answers: types, choices, nulls, lists and objects.

A field whose few values repeat, and are not copied from the document, is a choice. Rows whose
answer differs from nearly all others are named instead of widening the schema. Left out: bounds of
numbers and lengths, which a sample cannot show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.text.normalise import iso_date

RARE = 0.05  # share of rows that may differ from all others
MOST_CHOICES, SURE_CHOICES = 20, 6
LONGEST_CHOICE = 40  # characters
REPEATS = 3  # how often a choice occurs on average
LEAST_VALUES = 8  # to call a field a choice
MANY_KEYS = 40  # an object with more is a map, whose keys are data

Schema = dict[str, Any]


@dataclass(frozen=True)
class AnswerShape:
    """The answers' schema, the rows that do not fit it and why, and what is uncertain."""

    schema: Schema
    unlike: Mapping[int, str]  # index of a row -> how it differs
    unsure: tuple[str, ...]


def infer_schema(answers: Sequence[Mapping[str, Any]], documents: Sequence[str]) -> AnswerShape:
    """Return the schema of most `answers`, each made from the document at the same place."""
    unlike = _unlike(answers)
    kept = [i for i in range(len(answers)) if i not in unlike]
    unsure: list[str] = []
    pairs = [(answers[i], documents[i]) for i in kept]
    return AnswerShape(_object(pairs, "", unsure), unlike, tuple(unsure))


def _unlike(answers: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return the rows that hold what at most RARE of all hold, or lack what all others have."""
    most = int(RARE * len(answers))
    shapes = [dict(_types("", answer)) for answer in answers]
    seen = Counter(pair for shape in shapes for pair in shape.items())
    paths = Counter(path for shape in shapes for path in shape)
    unlike: dict[int, str] = {}
    for i, shape in enumerate(shapes):
        for path, kind in shape.items():
            if kind != "null" and paths[path] <= most and "." not in path and "[]" not in path:
                unlike.setdefault(i, f"only few answers have {path!r}")
            elif kind != "null" and seen[path, kind] <= most < paths[path]:
                unlike.setdefault(i, f"{path!r} is of the type {kind}")
        missing = [path for path in paths if path not in shape and "." not in path]
        missing = [path for path in missing if len(answers) - paths[path] <= most]
        if missing and "[]" not in missing[0]:
            unlike.setdefault(i, f"{missing[0]!r} is missing")
    return unlike


def _types(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield every path in `value` with the type of what is there; of a list's items, the last."""
    if isinstance(value, Mapping):
        if path:
            yield path, "object"
        for name, part in value.items():
            yield from _types(f"{path}.{name}" if path else name, part)
    elif isinstance(value, list):
        yield path, "array"
        for part in value:
            yield from _types(f"{path}[]", part)
    else:
        yield path, type_name(value)


def type_name(value: Any) -> str:
    """Return the JSON type of a value other than an object or list; integers are numbers too."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "string"


def _object(pairs: Sequence[tuple[Mapping[str, Any], str]], path: str, unsure: list[str]) -> Schema:
    names = list(dict.fromkeys(name for value, _ in pairs for name in value))
    if len(names) > MANY_KEYS:
        unsure.append(f"{path or 'the answer'} has {len(names)} different keys: taken as a map")
        return {"type": "object"}
    properties: Schema = {}
    for name in names:
        held = [(value[name], document) for value, document in pairs if name in value]
        properties[name] = _part(held, f"{path}.{name}" if path else name, unsure)
    everywhere = set(names).intersection(*(value for value, _ in pairs))
    required = [name for name in names if name in everywhere]
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return {**schema, "additionalProperties": False}


def _part(pairs: Sequence[tuple[Any, str]], path: str, unsure: list[str]) -> Schema:
    """Return the schema of one field's values, each with the document it was made from."""
    filled = [(value, document) for value, document in pairs if value is not None]
    if not filled:
        unsure.append(f"{path} is null in every row: taken as text")
        return {"type": ["string", "null"]}
    kinds = [_kind(value) for value, _ in filled]
    schemas = []
    for kind in dict.fromkeys(kinds):
        held = [pair for pair, other in zip(filled, kinds, strict=True) if other == kind]
        schemas.append(_typed(kind, held, path, unsure))
    if len(schemas) > 1:
        unsure.append(f"{path} has values of different types: {', '.join(dict.fromkeys(kinds))}")
        nothing = [{"type": "null"}] if len(filled) < len(pairs) else []
        return {"anyOf": [*schemas, *nothing]}
    return _nullable(schemas[0]) if len(filled) < len(pairs) else schemas[0]


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "object"
    return "array" if isinstance(value, list) else type_name(value)


def _typed(kind: str, pairs: Sequence[tuple[Any, str]], path: str, unsure: list[str]) -> Schema:
    if kind == "object":
        return _object(pairs, path, unsure)
    if kind == "array":
        items = [(item, document) for value, document in pairs for item in value]
        return (
            {"type": "array", "items": _part(items, f"{path}[]", unsure)}
            if items
            else {"type": "array"}
        )
    if kind == "number":
        whole = all(isinstance(value, int) for value, _ in pairs)
        return {"type": "integer" if whole else "number"}
    return _string(pairs, path, unsure) if kind == "string" else {"type": kind}


def _string(pairs: Sequence[tuple[str, str]], path: str, unsure: list[str]) -> Schema:
    values = [value for value, _ in pairs]
    if all(iso_date(value) for value in values):
        return {"type": "string", "format": "date"}
    seen = Counter(values)
    few = len(seen) <= MOST_CHOICES and len(values) >= max(LEAST_VALUES, REPEATS * len(seen))
    if not few or any(len(value) > LONGEST_CHOICE for value in seen):
        return {"type": "string"}
    copied = sum(value.casefold() in document.casefold() for value, document in pairs)
    if copied > 0.8 * len(pairs) and len(seen) > SURE_CHOICES:
        return {"type": "string"}
    once = [value for value, count in seen.items() if count == 1]
    if once and len(seen) > 1:
        shown = ", ".join(map(repr, once[:3]))
        unsure.append(f"{path}: seen once only, kept as a choice: {shown}")
    return {"type": "string", "enum": sorted(seen)}


def _nullable(schema: Schema) -> Schema:
    if "type" not in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    nullable = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable
