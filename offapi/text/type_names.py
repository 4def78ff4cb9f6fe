"""Types in the words of a user: a number, a text, a list. One place for msgspec's messages."""

from __future__ import annotations

import re

NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "list": "a list",
    "object": "an object",
    "dict": "an object",
    "null": "nothing",
    "NoneType": "nothing",
    "Path": "a path",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?")


def type_name(name: str) -> str:
    """Return a type's name in words; of `int | null` both, of an unknown one the name itself."""
    return " or ".join(NAMES.get(part, part) for part in name.split(" | "))


def plain_types(message: str) -> str:
    """Return a message of msgspec with its types in words."""
    return _EXPECTED.sub(_in_words, message)


def _in_words(match: re.Match[str]) -> str:
    got = f", got {type_name(match[2])}" if match[2] else ""
    return f"must be {type_name(match[1])}{got}"
