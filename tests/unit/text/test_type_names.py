"""Types are named as people name them, wherever msgspec's message ends up."""

from __future__ import annotations

import msgspec
import pytest

from offapi.text.type_names import plain_types, type_name


@pytest.mark.parametrize(
    ("given", "kind", "shown"),
    [
        ("x", float, "must be a number, got a text"),
        (1.5, int, "must be a whole number, got a number"),
        (True, int, "must be a whole number, got true or false"),
        (None, str, "must be a text, got nothing"),
        ([], str | None, "must be a text or nothing, got a list"),
        ({}, bool, "must be true or false, got an object"),
    ],
)
def test_msgspecs_own_messages(given: object, kind: type, shown: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(given, kind)
    assert plain_types(str(caught.value)) == shown


def test_bounds_places_and_unknown_types_stay() -> None:
    assert plain_types("Expected `int` >= 1 - at `$.n`") == "must be a whole number >= 1 - at `$.n`"
    assert plain_types("Invalid enum value 'x'") == "Invalid enum value 'x'"
    assert type_name("uuid") == "uuid"
