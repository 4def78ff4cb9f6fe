"""What keeps a value from being gold of its kind, and how to put it right.

Left out: whether the whole answer fits the schema (`offapi.checks.schema`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from offapi.checks.fields import holds_path, value_at
from offapi.checks.kinds import KindName, Match, kind_of
from offapi.checks.schema_types import JsonSchema, choices_of, field_schema, is_optional
from offapi.text.normalise import is_number, iso_date

# By kind: what gold must be, and whether a value is.
_MUST: Mapping[KindName, tuple[str, Callable[[object], bool]]] = {
    "text": ("a string, true or false", lambda gold: isinstance(gold, str | bool)),
    "number": ("a number", is_number),
    "date": ("a date as YYYY-MM-DD", lambda gold: isinstance(gold, str) and bool(iso_date(gold))),
    "boolean": ("true or false", lambda gold: isinstance(gold, bool)),
    "list": ("a list", lambda gold: isinstance(gold, list)),
    "object": ("an object", lambda gold: isinstance(gold, Mapping)),
    "fuzzy": ("a string", lambda gold: isinstance(gold, str)),
}
_PRINTED = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y/%m/%d", "%d %B %Y", "%B %d, %Y",
    "%d %b %Y", "%b %d, %Y", "%d/%m/%y", "%m/%d/%y", "%Y-%m-%dT%H:%M:%S",
)  # fmt: skip


def gold_mistake(path: str, match: Match, gold: Mapping[str, Any], schema: JsonSchema) -> str:
    """Return why the field at `path` cannot be compared with `gold`, or "" if it can.

    Null is always gold. A field that the schema calls optional may be absent and counts as null.
    """
    if not holds_path(gold, path):
        return "" if is_optional(schema, path) else "is missing"
    value = value_at(gold, path)
    if value is None:
        return ""
    name = kind_of(match).name
    if name == "choice":
        choices = choices_of(field_schema(schema, path), schema)
        known = ", ".join(repr(choice) for choice in choices)
        return "" if value in choices else f"must be one of {known} or null"
    what, fits = _MUST.get(name, ("", bool))
    return "" if not what or fits(value) else f"must be {what} or null"


def gold_advice(match: Match, value: object) -> str:
    """Return how to turn `value` into gold of its kind; "" where nothing is known."""
    name = kind_of(match).name
    if name == "date" and isinstance(value, str):
        return _date_advice(value)
    if name == "number" and isinstance(value, str):
        return "Write the number without quotes, currency and thousands separators."
    fitting = {bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
    better = fitting.get(type(value), "text" if isinstance(value, str) else "")
    return f'Convert it, or compare the field as "{better}" in `match`.' if better else ""


def _date_advice(value: str) -> str:
    fits = [layout for layout in _PRINTED if _reads(value, layout)]
    layout = fits[0] if fits else "%d/%m/%Y"
    if len(fits) > 1:
        which = f"{' or '.join(map(repr, fits))}, by the order of day and month that you know"
        return f"Convert printed dates: datetime.strptime(text, ...) with {which}; then .date()."
    return f"Convert printed dates: datetime.strptime(text, {layout!r}).date().isoformat()."


def _reads(value: str, layout: str) -> bool:
    try:
        datetime.strptime(value.strip(), layout)
    except ValueError:
        return False
    return True
