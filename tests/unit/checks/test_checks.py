"""Checks: strict parsing, schema, gold comparison, and finding values in a document."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
import reached
from hypothesis import given
from hypothesis import strategies as st

from offapi.checks import (
    Answer,
    Context,
    Match,
    Verdict,
    fits_schema,
    in_source,
    is_json,
    literals,
    matches_gold,
)
from offapi.checks.dates import date_readings
from offapi.checks.gold import same_value, score_value
from offapi.checks.in_source import value_occurs
from offapi.checks.numbers import number_readings
from offapi.checks.verdict import parse
from offapi.demo.facts import DateStyle, Money, spell

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"vendor": {"type": "string"}, "date": {"type": "string", "format": "date"}},
    "required": ["vendor", "date"],
}
MATCH: dict[str, Match] = {"vendor": "text", "date": "date", "total": "number"}


@pytest.mark.parametrize(
    "text", ['{"a":1}', ' \n{"a": [1, {"b": null}]}\n', '{"a":"\\u00e9"}', "{}"]
)
def test_one_object_is_read(text: str) -> None:
    assert parse(text).value is not None
    assert parse(text).error == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "character 0"),
        ('{"a":1} {"a":1}', "Extra data"),
        ('Here: {"a":1}', "character 0"),
        ('```json\n{"a":1}\n```', "character 0"),
        ('{"a":1', "delimiter"),
        ('{"a":NaN}', "NaN"),
        ('{"a":-Infinity}', "Infinity"),
        ('{"a":1e999}', "out of range"),
        ('{"a":1,"a":2}', "'a' occurs twice"),
        ('{"b":{"a":1,"a":1}}', "'a' occurs twice"),
        ('{"a":99999999999999999999}', "64-bit"),
        ('{"a":' + "9" * 5000 + "}", "not JSON"),
        ('{"a":"\\ud800"}', "not JSON"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "deep"),
        ("{'a':1}", "double quotes"),
        ("[1]", "array"),
        ("3", "number"),
        ("null", "null"),
    ],
)
def test_anything_else_is_not_an_answer_and_says_why(text: str, reason: str) -> None:
    answer = parse(text)
    assert answer.value is None
    assert reason in answer.error
    for check in (is_json, fits_schema, in_source):
        assert check("doc", answer, Context(SCHEMA, MATCH)) == Verdict(0.0, answer.error)


def test_deep_nesting_that_could_not_be_written_back_is_refused() -> None:
    assert parse('{"a":' * 300 + "1" + "}" * 300).value is None


@given(st.text())
def test_parsing_never_raises(text: str) -> None:
    parse(text)


def test_schema_names_the_field_that_does_not_fit() -> None:
    context = Context(SCHEMA, MATCH)
    assert fits_schema("", parse('{"vendor":"A","date":"2026-04-02"}'), context).score == 1.0
    missing = fits_schema("", parse('{"vendor":"A"}'), context)
    assert (missing.score, "date" in missing.reason) == (0.0, True)
    typed = fits_schema("", parse('{"vendor":5,"date":"2026-04-02"}'), context)
    assert (typed.score, "'vendor'" in typed.reason) == (0.0, True)
    assert fits_schema("", parse('{"vendor":"A","date":"2026-02-30"}'), context).score == 0.0


@pytest.mark.parametrize(
    ("kind", "answer", "gold", "equal"),
    [
        ("text", "ACME  Ltd.", "Acme Ltd", True),
        ("text", "Acme & Co", "Acme Co", True),
        ("text", "Acme Ltd", "Acme Limited", False),
        ("text", "Café Zoë", "CAFE\u0301 ZOE\u0308", True),
        ("text", "Cafe", "Café", False),
        ("text", "STRASSE", "Straße", True),
        ("text", "UNİ", "UNI", True),
        ("text", "कि", "का", False),
        ("text", "株式会社アクメ", "株式会社 アクメ", True),
        ("text", "!!", "??", False),
        ("text", "", "Acme", False),
        ("text", 5, "5", False),
        ("text", None, "Acme", False),
        ("text", None, None, True),
        ("text", "Acme", None, False),
        ("date", "2026-04-02", "2026-04-02", True),
        ("date", "2026-04-02", "2026-02-04", False),
        ("date", "20260402", "2026-04-02", False),
        ("date", "02/04/2026", "2026-04-02", False),
        ("date", "2026-04-31", "2026-04-31", False),
        ("number", 128.5, 128.50, True),
        ("number", 128, 128.0, True),
        ("number", 128.505, 128.50, True),
        ("number", 128.506, 128.50, False),
        ("number", 0.125, 0.12, True),
        ("number", "128.5", 128.5, False),
        ("number", True, 1.0, False),
        ("number", -5.0, 5.0, False),
    ],
)
def test_fields_are_compared_by_kind(
    kind: Match, answer: object, gold: object, equal: bool
) -> None:
    assert same_value(kind, answer, gold) is equal


def test_gold_check_gives_the_share_and_the_names() -> None:
    gold = {"vendor": "Acme", "date": "2026-04-02", "total": 8.5}
    context = Context(SCHEMA, MATCH, gold)
    found = matches_gold("", parse('{"vendor":"acme","date":"2026-04-03","total":8.5}'), context)
    assert found.score == pytest.approx(2 / 3)
    assert found.reason == "differs from gold: date"
    assert matches_gold("", parse("nonsense"), context).score == 0.0
    with pytest.raises(ValueError, match="no gold"):
        matches_gold("", parse("{}"), Context(SCHEMA, MATCH))


LINE, OTHER = {"name": "Rye loaf", "amount": 4.5}, {"name": "Tea", "amount": 2}


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [
        ([LINE, OTHER], [OTHER, LINE], 1.0),
        ([LINE], [LINE, OTHER], 2 / 3),
        ([LINE, OTHER, OTHER], [LINE, OTHER], 0.8),
        ([OTHER, OTHER], [OTHER], 2 / 3),
        ([{"amount": 4.504, "name": "RYE-LOAF", "note": None}], [LINE], 1.0),
        ([{**LINE, "note": "x"}], [LINE], 0.0),
        ([{"name": "Rye loaf"}], [LINE], 0.0),
        (["a", "B"], ["A.", "b"], 1.0),
        ([1.001, 2], [2.0, 1], 1.0),
        (["1"], [1], 0.0),
        ([True], [1], 0.0),
        ([True, None], [None, True], 1.0),
        ([["a", "b"]], [["B", "A"]], 1.0),
        ([["a", "b"]], [["a"]], 0.0),
        ([], [], 1.0),
        ([], ["a"], 0.0),
        (["a"], [], 0.0),
        ({"a": 1}, [1], 0.0),
        (None, [], 0.0),
        (None, None, 1.0),
        ([], None, 0.0),
    ],
)
def test_lists_are_compared_by_the_items_they_share(
    answer: object, gold: object, f1: float
) -> None:
    assert score_value("list", answer, gold) == pytest.approx(f1)
    assert same_value("list", answer, gold) is (f1 == 1.0)


def test_the_gold_check_scores_lists_by_f1_and_takes_only_lists() -> None:
    context = Context({}, {"vendor": "text", "lines": "list"}, {"vendor": "A", "lines": ["x", "y"]})
    found = matches_gold("", parse('{"vendor":"a","lines":["y"]}'), context)
    assert found.score == pytest.approx((1 + 2 / 3) / 2)
    assert found.reason == "differs from gold: lines"


@given(
    st.lists(st.sampled_from("abcd"), max_size=6),
    st.lists(st.sampled_from("abcd"), max_size=6),
    st.randoms(),
)
def test_f1_does_not_depend_on_order_or_side(one: list[str], other: list[str], random: Any) -> None:
    f1 = score_value("list", one, other)
    shuffled = random.sample(one, len(one))
    assert f1 == score_value("list", shuffled, other) == score_value("list", other, one)
    assert (f1 == 1.0) is (sorted(one) == sorted(other))


STYLES: tuple[DateStyle, ...] = ("iso", "slash", "us", "dots", "long", "us long", "short", "caps")


@given(st.dates(date(1950, 1, 1), date(2049, 12, 31)), st.sampled_from(STYLES))
def test_a_date_is_found_in_any_style_but_not_the_next_day(day: date, style: DateStyle) -> None:
    text = f"REG 19- {spell(day, style)} 10:27:03\nTOTAL 12.50"
    assert value_occurs("date", day.isoformat(), text)
    assert not value_occurs("date", (day + timedelta(days=40)).isoformat(), spell(day, style))


@pytest.mark.parametrize(
    "text",
    ["2 Apr 2026", "2nd of April, 2026", "02.Apr.2026", "2 avril 2026", "2. April 2026", "2 de abril de 2026",
     "02/04/26", "2026/4/2", "2026 04 02", "20260402", "2026APR02", "02-apr-26", "O2/O4/2O26", "Apr 2, 2026",
     "02 04 2026"],
)  # fmt: skip
def test_a_date_is_found_as_people_and_scanners_write_it(text: str) -> None:
    assert date(2026, 4, 2) in date_readings(f"Date: {text} 14:05")


@pytest.mark.parametrize(
    "text",
    ["02/05/2026", "Apr 2026", "April 3, 2026", "31/02/2026", "call 02 04 20", "9902/04/20261"],
)
def test_a_date_that_is_not_there_is_not_found(text: str) -> None:
    assert date(2026, 4, 2) not in date_readings(text)


MONEY = st.builds(
    Money,
    before=st.sampled_from(["", "£", "$", "EUR ", "RM"]),
    after=st.sampled_from(["", " €", " kr"]),
    thousands=st.just(","),
    point=st.just("."),
) | st.builds(
    Money, before=st.just(""), after=st.just(" €"), thousands=st.sampled_from([".", " ", "'"]), point=st.just(",")
)  # fmt: skip


@given(st.integers(0, 10**9), MONEY, st.sampled_from(["", "3 ", "Qty 12 x "]))
def test_an_amount_is_found_in_any_format(minor: int, money: Money, before: str) -> None:
    text = f"TOTAL {before}{money(minor)}\n"
    assert value_occurs("number", minor / 100, text)
    assert not value_occurs("number", minor / 100 + 0.01, f"TOTAL {money(minor)}")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (128.5, "£128.50"),
        (1234.5, "1.234,50"),
        (1234.5, "1 234,50 kr"),
        (1234, "¥1,234"),
        (65.7, "RM 65 .70"),
        (128.5, "£l28.5O"),
        (-12.0, "CREDIT -12.00"),
        (3, "3x widget"),
        (120.0, "3 120.00"),
    ],
)
def test_a_number_is_found_as_people_and_scanners_write_it(value: float, text: str) -> None:
    assert value_occurs("number", value, text)


@pytest.mark.parametrize(
    ("value", "text"), [(128.5, "12.850"), (28.5, "£128.50"), (128.0, "£128.50"), (5, "S")]
)
def test_a_number_that_is_not_there_is_not_found(value: float, text: str) -> None:
    assert not value_occurs("number", value, text)
    assert isinstance(number_readings(text), frozenset)


def test_names_survive_scanning_noise_but_not_another_name() -> None:
    text = "BR1GHTWATER PLUMBlNG LTD\n12 Mill Lane\nTOTAL 5.00"
    assert value_occurs("text", "Brightwater Plumbing Ltd", text)
    assert not value_occurs("text", "Brightwater Bakery Ltd", text)
    assert not value_occurs("text", "Harlow Timber", text)
    assert not value_occurs("text", "Ltx", text)
    assert not value_occurs("text", "a name longer than the document " * 4, text)
    assert not value_occurs("text", "", text)
    assert not value_occurs("text", ["Brightwater"], text)


def test_the_source_check_names_what_is_missing_and_skips_nulls() -> None:
    document = "Acme Ltd\n02/04/2026\nTotal £8.50"
    context = Context(SCHEMA, MATCH)
    right = in_source(
        document, parse('{"vendor":"Acme Ltd","date":"2026-04-02","total":8.5}'), context
    )
    assert right.score == 1.0
    wrong = in_source(
        document, parse('{"vendor":"Acme Ltd","date":"2026-04-03","total":9}'), context
    )
    assert wrong.score == pytest.approx(1 / 3)
    assert wrong.reason == "not in the document: date, total"
    assert in_source(document, parse('{"vendor":"Acme Ltd","date":null}'), context).score == 1.0
    assert in_source(document, parse('{"vendor":null}'), context).score == 1.0


def test_the_items_of_a_list_are_looked_for_one_by_one() -> None:
    document = "Acme Ltd\n2 x Rye loaf 4.50\nTea 2.00\n02/04/2026"
    context = Context({}, {"vendor": "text", "lines": "list"})
    lines = [
        {"name": "Rye loaf", "amount": 4.5, "gift": False},
        {"name": "Tea", "amount": 3},
        "2026-04-02",
        None,
    ]
    found = in_source(document, Answer("", {"vendor": "Acme Ltd", "lines": lines}), context)
    assert found.score == pytest.approx((1 + 3 / 4) / 2)
    assert found.reason == "not in the document: lines"
    assert in_source(document, Answer("", {"lines": []}), context).score == 1.0
    assert in_source(document, Answer("", {"lines": "Tea"}), context).score == 0.0
    assert value_occurs("list", lines[:1], document)
    assert not value_occurs("list", lines, document)


DATE_FORMS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%y", "%d %B %Y", "%b %d, %Y", "%Y/%m/%d")
NUMBERY = st.text(alphabet="0125 .,-/'\n", max_size=16)


def around(*spellings: str) -> st.SearchStrategy[str]:
    """Draw texts that may hold one of the spellings, apart from other digits."""
    middle = st.sampled_from(["", *(f"\nx {spelling} x\n" for spelling in spellings)])
    return st.tuples(NUMBERY, middle, NUMBERY).map("".join)


@reached.at_least(20)
@given(
    st.sampled_from(
        [0.0, 1.0, 2.0, 12.0, 0.5, 1.25, 12.5, 25.5, 1000.0, 1205.5, 5012.12, 1e13, -2.0]
    ).flatmap(
        lambda value: st.tuples(
            st.just(value), around(f"{value:g}", f"{value:.2f}", f"{value:,.2f}", f"({abs(value)})")
        )
    )
)
def test_a_number_found_literally_is_among_the_readings(pair: tuple[float, str]) -> None:
    value, text = pair
    if literals.number_stands(value, text):
        reached.hit()
        assert any(abs(abs(value) - found) < 0.005 for found in number_readings(text))


@reached.at_least(5)
@given(
    st.sampled_from(
        [date(2001, 2, 1), date(2012, 1, 2), date(2005, 2, 5), date(2022, 12, 10)]
    ).flatmap(
        lambda day: st.tuples(
            st.just(day), around(*(day.strftime(form) for form in DATE_FORMS), day.isoformat())
        )
    )
)
def test_a_date_found_literally_is_among_the_readings(pair: tuple[date, str]) -> None:
    day, text = pair
    if literals.date_stands(day, text):
        reached.hit()
        assert day in date_readings(text)


@pytest.mark.parametrize(
    ("value", "text", "there"),
    [
        (128.5, "RM128.50", True),
        (128.5, "(128,50)", True),
        (128.5, "5.128.50", False),
        (128.5, "128.505", False),
        (28.5, "128.50 28.50", True),
        (1234.5, "1,234.50", True),
        (1234.5, "1.234,50", True),
        (3, "3 x", True),
        (3, "3 .50", False),
        (3, "13", False),
    ],
)
def test_plain_spellings_are_found_without_readings(value: float, text: str, there: bool) -> None:
    assert literals.number_stands(value, text) is there


def test_a_month_in_words_is_found_on_its_line_and_on_long_ones() -> None:
    for text in (
        "x\n24 MAR 18 09:12\ny",
        "24 März 2018",
        "a" * 500 + " 24 mars 2018",
        "mark\nmarch\n24 Mar 18",
    ):
        assert value_occurs("date", "2018-03-24", text)
        assert not value_occurs("date", "2018-03-25", text)
