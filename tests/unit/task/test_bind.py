"""Declarations of bound fields, and the mistakes in them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import offapi
from offapi.checks import is_json
from offapi.errors import ConfigError
from offapi.task import Task
from offapi.task.bind import OneOf, Quote, part_at, quoted_in

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "vendor": {"type": ["string", "null"]},
        "note": {"type": "string", "x-quote": True},
        "kind": {"enum": ["a", "b"]},
        "date": {"type": "string"},
        "total": {"type": "number"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "x-quote": True}},
            },
        },
    },
}


def task(**parts: Any) -> Task:
    match: Any = {"vendor": "text", "date": "date"}
    return Task("t", "Read.", SCHEMA, {"json": (is_json, 1.0)}, match, **parts)


def test_fields_are_bound_by_path() -> None:
    bound = {**offapi.quote("vendor", "items[].name"), "date": offapi.one_of("a.csv", "name")}
    assert bound["vendor"] == bound["items[].name"] == Quote()
    assert isinstance(bound["date"], OneOf)
    assert sorted(quoted_in(SCHEMA)) == ["items[].name", "note"]
    assert part_at(SCHEMA, "items[].name") == {"type": "string", "x-quote": True}
    assert part_at(SCHEMA, "items.name") is None


def test_a_task_with_bind_is_copied_and_pickled() -> None:
    made = task(bind={"vendor": offapi.one_of("a.txt")})
    assert copy.deepcopy(made).bind == made.bind
    assert pickle.loads(pickle.dumps(made)).bind == made.bind


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        (offapi.quote("vendr"), "'vendr', which is not in the schema"),
        (offapi.quote("total"), "the schema says number"),
        (offapi.quote("kind"), "the schema says an enum"),
        (offapi.quote("note"), "the schema says x-quote"),
        (offapi.quote("date"), "is of the kind 'date'"),
        (offapi.quote("items"), "the schema says array"),
        ({"vendor": "quote"}, "must be a quote or a list"),
        ("vendor", "bind must be a mapping"),
    ],
)
def test_mistakes_are_named_with_the_field(bind: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task(bind=bind)
    assert says in caught.value.what
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("path", "column", "says"),
    [
        ("names.xlsx", "name", "reads .txt, .csv and .jsonl"),
        ("names.csv", None, "needs the name of a column"),
        ("names.txt", "name", "has no columns"),
    ],
)
def test_a_list_says_what_it_needs(path: str, column: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        offapi.one_of(path, column)


def test_a_task_of_text_binds_nothing() -> None:
    from offapi.checks import length

    with pytest.raises(ConfigError, match="answers with text"):
        Task("t", "Sum up.", None, {"length": (length(), 1.0)}, bind=offapi.quote("vendor"))
