"""Which known answers may be learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import offapi
from offapi.checks import is_json
from offapi.task.learned_answer import answer_error

SHOP: Mapping[str, Any] = {"type": "object", "properties": {"shop": {"type": "string"}}}


def task(schema: Mapping[str, Any]) -> offapi.Task:
    return offapi.Task(
        name="shops",
        instructions="Name the shop.",
        schema=schema,
        checks={"json": (is_json, 1.0)},
        match={"shop": "text"},
    )


@pytest.mark.parametrize(
    ("schema", "answer", "what"),
    [
        (SHOP, {"shop": "Ash"}, None),
        (SHOP, {}, "gold is empty."),
        (SHOP, {"shop": "Ash", "town": "Ely"}, "gold has the field 'town', which is not in"),
        ({**SHOP, "additionalProperties": True}, {"shop": "Ash", "town": "Ely"}, None),
        ({**SHOP, "patternProperties": {"^x": {}}}, {"shop": "Ash", "x": 1}, None),
        ({**SHOP, "additionalProperties": False}, {"shop": "Ash", "t": 1}, "has the field 't'"),
        ({**SHOP, "minProperties": 2}, {"shop": "Ash"}, "gold does not fit the schema:"),
        ({"$defs": {"a": SHOP}, "$ref": "#/$defs/a", "properties": {}}, {"shop": "Ash"}, None),
    ],
)
def test_answers(schema: Mapping[str, Any], answer: dict[str, Any], what: str | None) -> None:
    error = answer_error(task(schema), answer, "a", "gold")
    assert (error is None) == (what is None)
    assert what is None or (error and what in error.what)
