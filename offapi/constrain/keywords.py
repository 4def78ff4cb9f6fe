"""What a schema's keywords ask for: those that say nothing, those enforced, those refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offapi.errors import ConfigError

ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
    "$comment", "$schema", "$id", "$anchor", "$defs", "definitions", "x-quote",
})  # fmt: skip

# Keywords of JSON Schema that no grammar here enforces, and what to write instead.
_REFUSED: Mapping[str, str] = {
    "uniqueItems": "Leave it out: a check can still ask for it.",
    "contains": "Leave it out, or say it of `items`.",
    "minContains": "Leave it out.",
    "maxContains": "Leave it out.",
    "not": "Say what is allowed instead.",
    "if": "Write the cases as anyOf.",
    "then": "Write the cases as anyOf.",
    "else": "Write the cases as anyOf.",
    "dependentRequired": "Write the cases as anyOf.",
    "dependentSchemas": "Write the cases as anyOf.",
    "dependencies": "Write the cases as anyOf.",
    "propertyNames": "Name the properties.",
    "unevaluatedProperties": "Write additionalProperties: false.",
    "unevaluatedItems": "Write `items`.",
    "$dynamicRef": "Use $ref.",
    "contentEncoding": "Use `pattern`.",
    "contentMediaType": "Leave it out.",
}

# A character of a JSON string as answers are spelled: no \u escapes, which may be half of one.
STRING_CHARACTER = r'([^"\\\x00-\x1f\x7f]|\\["\\\/bfnrt])'

# "YYYY-MM-DD", days that exist only.
DATE = (
    r'"(\d{4}-(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|\d{4}-(0[469]|11)-(0[1-9]|[12]\d|30)'
    r"|\d{4}-02-(0[1-9]|1\d|2[0-8])"
    r"|(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29"
    r')"'
).replace(r"\d", "[0-9]")


class CannotConstrain(ConfigError):
    """A schema that no grammar here keeps; `keyword` is what it asks for, in a library's words."""

    keyword = ""


def own_keywords(part: Mapping[str, Any]) -> frozenset[str]:
    """Return the keywords of `part` that ask for something."""
    return frozenset(key for key in part if key not in ANNOTATIONS and not key.startswith("x-"))


def check_keywords(part: Mapping[str, Any], path: str) -> None:
    """Raise ConfigError at the first keyword that cannot be enforced."""
    for key in part:
        if key in _REFUSED and not (key == "uniqueItems" and part[key] is False):
            raise refused(path, key, "it cannot be enforced word by word", _REFUSED[key])


def refused(path: str, keyword: str, why: str, step: str = "") -> CannotConstrain:
    """Return the error for what cannot be enforced at `path`."""
    field = f"field {path!r}" if path else "the answer"
    error = CannotConstrain(
        f"constrain cannot keep {field} to its schema: {keyword}: {why}.",
        where=f"schema, {field}",
        next_step=step or "Change the schema, or set constrain = 'off'.",
    )
    error.keyword = keyword
    return error
