"""Kinds: what each calls equal, tolerances, what a task refuses, gold of every kind."""

from __future__ import annotations

from typing import Any

import pytest

import offapi
from offapi.checks import Answer, Context, Kind, Match, in_source, is_json, matches_gold
from offapi.checks.gold import compare_fields, object_parts, same_value, score_value
from offapi.checks.gold_mistakes import gold_mistake
from offapi.checks.kinds import EXPLAINED, KIND_NAMES, KindName
from offapi.errors import ConfigError, DataError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "vendor": {"type": ["string", "null"]},
        "paid": {"type": "boolean"},
        "kind": {"$ref": "#/$defs/Kind"},
        "rate": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "day": {"type": "string", "format": "date"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "total": {
            "type": "object",
            "properties": {"price": {"type": "number"}, "currency": {"type": "string"}},
            "required": ["price"],
        },
        "free": {},
    },
    "$defs": {
        "Kind": {"enum": ["refund", "order", None]},
        "Line": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
        },
    },
}


def make_task(match: dict[str, Match], schema: dict[str, Any] = SCHEMA) -> offapi.Task:
    checks = {"json": (is_json, 1.0), "gold": (matches_gold, 1.0)}
    return offapi.Task("t", "Read.", schema=schema, checks=checks, match=match)


@pytest.mark.parametrize("name", KIND_NAMES)
def test_each_kinds_examples_are_as_it_says(name: KindName) -> None:
    explained = EXPLAINED[name]
    assert same_value(name, *explained.same)
    assert not same_value(name, *explained.different)


@pytest.mark.parametrize(
    ("match", "answer", "gold", "equal"),
    [
        ("text", True, True, True),
        ("text", "true", True, False),
        ("text", True, "true", False),
        ("exact", "FOO LTD", "Foo Ltd", False),
        ("exact", "Cafe\u0301", "Café", True),
        ("exact", True, 1, False),
        ("exact", [1, {"a": True}], [1.0, {"a": True}], True),
        ("exact", [1, {"a": 1}], [1, {"a": True}], False),
        ("exact", [1], [1, 2], False),
        ("boolean", False, False, True),
        ("boolean", 0, False, False),
        ("boolean", False, None, False),
        ("choice", "refund", "refund", True),
        ("choice", "refunds", "refund", False),
        (Kind("number", within=0.5), 12.5, 13, True),
        (Kind("number", within=0.5), 12.4, 13, False),
        (Kind("number", relative=0.01), 990, 1000, True),
        (Kind("number", relative=0.01), 989, 1000, False),
        (Kind("number", relative=0.01), -990, 1000, False),
        (Kind("number", relative=0.01), -990, -1000, True),
        (Kind("number", within=0.0), 12.504, 12.5, False),
        (Kind("number", within=20, relative=0.01), 985, 1000, True),
        ("fuzzy", "The parcel arrived  BROKEN", "the parcel arrived broken.", True),
        (Kind("fuzzy", threshold=60), "the parcel came broken", "the parcel arrived broken", True),
        (Kind("fuzzy", threshold=100), "the parcel came broken", "the parcel arrived", False),
        ("fuzzy", 5, "5", False),
        ("object", {"a": "X", "b": 1.0}, {"b": 1, "a": "x"}, True),
        ("object", {"a": "X", "b": 2}, {"a": "x"}, False),
        ("object", [], {"a": "x"}, False),
        ("object", {}, {}, True),
        ("object", "x", {}, False),
    ],
)
def test_values_are_compared_by_their_kind(
    match: Match, answer: object, gold: object, equal: bool
) -> None:
    assert same_value(match, answer, gold) is equal


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        (0.07, 0.075, False),
        (0.0754, 0.075, True),
        (0.0012, 0.0049, False),
        (12.504, 12.5, True),
        (12.506, 12.5, False),
        (0.1 + 0.2, 0.3, True),
        (1234, 1234.0, True),
        (0.3112, 0.3149, False),
        (1.0821, 1.0869, False),
        (1.2e-5, 1.3e-5, False),
        (1.2e-5, 1.2e-5, True),
        (0.12346, 0.1234, False),
        (10**12 + 0.004, 10**12, True),
    ],
)
def test_a_number_is_right_to_golds_own_precision(answer: float, gold: float, equal: bool) -> None:
    assert same_value("number", answer, gold) is equal


def test_an_object_counts_by_its_fields_and_names_them() -> None:
    gold = {"city": "Lyon", "geo": {"lat": 45.76, "lon": 4.84}, "code": None, "tags": ["a"]}
    answer = {"city": "LYON", "geo": {"lat": 45.76, "lon": 5.0}, "tags": ["a"], "extra": 1}
    assert object_parts(answer, gold) == {
        "city": True,
        "geo.lat": True,
        "geo.lon": False,
        "tags": True,
        "extra": False,
    }
    assert score_value("object", answer, gold) == pytest.approx(3 / 5)


def test_a_path_leads_into_an_object() -> None:
    match: dict[str, Match] = {"total.price": "number", "vendor": "text"}
    gold = {"total": {"price": 45500}, "vendor": None}
    task = make_task(match)
    task.check_gold(gold, row="1")
    assert compare_fields({"total": {"price": 45500.0}}, gold, match) == {
        "total.price": True,
        "vendor": True,
    }
    for other in ({}, {"total": None}, {"total": 45500}, {"total": {"price": "45500"}}):
        assert compare_fields(other, gold, match)["total.price"] is False
    grade = task.grade("d", '{"total":{"price":1}}', gold)
    assert grade.parts["gold"].reason == "differs from gold: total.price"
    assert task.answer_text({"total": {"price": 5, "currency": "EUR"}}) == (
        '{"total":{"price":5.00,"currency":"EUR"}}'
    )
    found = in_source("Total 45,500", Answer("", gold), Context(SCHEMA, match))
    assert (found.score, found.reason) == (1.0, "all values are in the document")


def test_a_field_whose_name_has_a_dot_is_that_field() -> None:
    schema = {"type": "object", "properties": {"a.b": {"type": "number"}}}
    task = make_task({"a.b": "number"}, schema)
    task.check_gold({"a.b": 1}, row="1")
    assert compare_fields({"a.b": 1}, {"a.b": 1}, task.match) == {"a.b": True}


def test_amounts_in_objects_are_spelled_by_the_schema_they_refer_to() -> None:
    task = make_task({"lines": "list"})
    text = task.answer_text({"lines": [{"count": 2, "name": "Tea", "more": 2}]})
    assert text == '{"lines":[{"name":"Tea","count":2,"more":2.00}]}'


@pytest.mark.parametrize(
    ("match", "said", "step"),
    [
        ({"vendor": "enum"}, "text, exact, number, date", "Did you mean 'choice'?"),
        ({"vendor": "bool"}, "got 'bool'", "Did you mean 'boolean'?"),
        ({"vendor": "texts"}, "got 'texts'", "Did you mean 'text'?"),
        ({"vendor": 3}, "got 3", "Known: "),
        ({"vendor": "number"}, "'number', and the schema says string", "Write 'text'"),
        ({"rate": "text"}, "'text', and the schema says number", "Write 'number'"),
        ({"paid": "date"}, "the schema says boolean", "Write 'boolean'"),
        ({"lines": "object"}, "the schema says array", "Write 'list'"),
        ({"total": "list"}, "the schema says object", "Write 'object'"),
        ({"day": "boolean"}, "the schema says string", "Write 'text'"),
        ({"vendor": "choice"}, "no `enum`", "'exact'"),
        ({"lines[].count": "number"}, "with the whole list", '{"lines": "list"}'),
        ({"total.prize": "number"}, "not in the schema", "total.price"),
        ({"total": "object", "total.price": "number"}, "both 'total' and", "Keep"),
    ],
)
def test_a_match_that_cannot_hold_names_the_way_out(match: Any, said: str, step: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_task(match)
    assert said in caught.value.what
    assert step in caught.value.next_step


def test_every_kind_that_fits_its_field_is_taken() -> None:
    make_task(
        {"vendor": Kind("fuzzy", threshold=85), "paid": "text", "kind": "choice", "day": "date",
         "rate": Kind("number", relative=0.01), "lines": "list", "total": "object", "free": "boolean"}
    )  # fmt: skip
    make_task({"paid": "exact", "lines": "exact", "kind": "text", "free": "number"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "enum"}, "a kind must be one of text,"),
        ({"name": "text", "within": 1.0}, "within is for the kind 'number'"),
        ({"name": "number", "threshold": 85}, "threshold is for the kind 'fuzzy'"),
        ({"name": "number", "within": -1}, "within must be 0 or more, got -1"),
        ({"name": "number", "relative": float("nan")}, "relative must be 0 or more"),
        ({"name": "number", "relative": "1%"}, "relative must be a number"),
        ({"name": "fuzzy", "threshold": 101}, "threshold must be from 0 to 100"),
    ],
)
def test_a_kind_says_what_it_cannot_tolerate(settings: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Kind(**settings)
    assert said in caught.value.what


@pytest.mark.parametrize(
    ("path", "match", "gold", "mistake"),
    [
        ("paid", "text", True, ""),
        ("paid", "boolean", "yes", "must be true or false or null"),
        ("kind", "choice", "refunds", "must be one of 'refund', 'order', None or null"),
        ("kind", "choice", "order", ""),
        ("lines", "list", {"a": 1}, "must be a list or null"),
        ("lines", "list", [], ""),
        ("total", "object", [], "must be an object or null"),
        ("vendor", "text", 5, "must be a string, true or false or null"),
        ("day", "date", "25/12/2018", "must be a date as YYYY-MM-DD or null"),
        ("vendor", Kind("fuzzy"), None, ""),
    ],
)
def test_gold_must_be_of_its_kind(path: str, match: Match, gold: object, mistake: str) -> None:
    assert gold_mistake(path, match, {path: gold}, SCHEMA) == mistake


def test_gold_may_leave_out_what_the_schema_calls_optional() -> None:
    assert gold_mistake("total.currency", "text", {"total": {"price": 1}}, SCHEMA) == ""
    assert gold_mistake("total.price", "number", {"total": {}}, SCHEMA) == "is missing"
    assert gold_mistake("total.price", "number", {"total": None}, SCHEMA) == ""
    assert gold_mistake("vendor", "text", {}, SCHEMA) == "is missing"  # nothing is required
    optional = {**SCHEMA, "required": ["paid"]}
    assert gold_mistake("vendor", "text", {}, optional) == ""
    assert gold_mistake("paid", "text", {}, optional) == "is missing"
    assert gold_mistake("total.price", "number", {}, optional) == ""


@pytest.mark.parametrize(
    ("field", "gold", "step"),
    [
        ("day", "25/12/2018", "datetime.strptime(text, '%d/%m/%Y')"),
        ("day", "04/03/2018", "by the order of day and month"),
        ("day", "December 25, 2018", "'%B %d, %Y'"),
        ("rate", "1,5", "without quotes"),
        ("vendor", 5, 'compare the field as "number"'),
        ("vendor", ["a"], 'compare the field as "list"'),
    ],
)
def test_wrong_gold_says_how_to_convert_it(field: str, gold: object, step: str) -> None:
    kinds: dict[str, Match] = {"day": "date", "rate": "number", "vendor": "text"}
    with pytest.raises(DataError) as caught:
        make_task({field: kinds[field]}).check_gold({field: gold}, row="1")
    assert step in caught.value.next_step
    assert repr(gold) in caught.value.what


def test_choices_true_and_free_text_are_not_looked_for_in_the_document() -> None:
    match: dict[str, Match] = {"kind": "choice", "paid": "boolean", "vendor": "fuzzy"}
    value = {"kind": "refund", "paid": True, "vendor": "A sentence about it."}
    found = in_source("nothing of it", Answer("", value), Context(SCHEMA, match))
    assert (found.score, found.reason) == (1.0, "no field has a value to look for")


def test_references_are_followed_by_their_escaped_names() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/x~1y~0z"}},
        "$defs": {"x/y~z": {"type": "number"}},
    }
    make_task({"a": "number"}, schema)
    with pytest.raises(ConfigError, match="the schema says number"):
        make_task({"a": "text"}, schema)
