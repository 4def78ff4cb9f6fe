"""The grammar of numbers: what a document's digits and marks may mean, for every check."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.checks import Answer, Check, Context, final_total, in_source
from offapi.checks.in_source import value_occurs
from offapi.checks.literals import number_stands
from offapi.checks.numbers import is_negative, number_readings

WRITTEN = [
    (123456.0, "Total Rs. 1,23,456.00"),
    (1234567.89, "₹ 12,34,567.89"),
    (100000, "1,00,000"),
    (1234.5, "Total 1\u2009234,50 €"),
    (1234.5, "1\u202f234,50"),
    (1234.5, "1\u00a0234,50"),
    (1234567.0, "1 234 567"),
    (1234.5, "1’234.50"),
    (1000000, "1'000'000.–"),
    (12345678.9, "12.345.678,90"),
    (1234.567, "1,234.567"),
    (0.5, "Total .50"),
    (0.5, "$.50"),
    (50, "Rs.50"),
    (25, "Total.....25"),
    (12.5, "Total 12\u200b.50"),
    (12.5, "12·50"),
    (12345.0, "12&nbsp;345,00"),
    (1234.5, "１，２３４．５０"),
    (1234.5, "١٬٢٣٤٫٥٠"),
    (12.5, "12.50¹"),
    (1, "1, 2 and 3"),
    (2, "1, 2 and 3"),
    (1234.5, "(1,234.50)"),
    (1234.5, "1.234,50-"),
    (0.075, "rate 0.075"),
    (-5.0, "−5.00"),
]
OTHER = [
    (123457.0, "Total Rs. 1,23,456.00"),
    (50, "Total .50"),
    (12, "12\u200b.50"),
    (0.07, "0.075"),
    (0.0012, "0.00 of 1"),
    (0.3112, ".3149"),
    (500, "1.500"),
    (234.5, "1,234.50"),
    (12.501, "12.50¹"),
    (345, "2,345.00"),
    (250, "1'250"),
]


@pytest.mark.parametrize(("value", "text"), WRITTEN)
def test_a_number_is_read_however_it_is_grouped_and_encoded(value: float, text: str) -> None:
    assert value_occurs("number", value, text)


@pytest.mark.parametrize(("value", "text"), OTHER)
def test_another_number_is_not_read(value: float, text: str) -> None:
    assert not value_occurs("number", value, text)


def score(check: Check, document: str, total: object) -> float:
    return check(document, Answer("", {"total": total}), Context({}, {"total": "number"})).score


@pytest.mark.parametrize(
    ("document", "right", "wrong"),
    [
        ("Foo\nTotal 1\u00a0234,50\nTVA 200,00", 1234.5, 200.0),
        ("Foo\nTotal 1\u202f234\u202f567,50\nTVA 200,00", 1234567.5, 200.0),
        ("Foo\nSub Total 1,00,000.00\nGST 18,000.00\nGrand Total 1,18,000.00", 118000.0, 100000.0),
        ("Grand Total ₹12,34,567.00\nGST 1,00,000.00", 1234567.0, 100000.0),
        ("Gesamtbetrag 1'234.50\nMwSt 100.00", 1234.5, 100.0),
        ("Total 12\u200b.50\nVAT 2.50", 12.5, 2.5),
        ("Total １２．５０\nVAT 2.50", 12.5, 2.5),
        ("TOTAL 65.72\nROUNDING (0.02)\nTOTAL 65.70", 65.7, 65.72),
        ("Total .50\nVAT .10", 0.5, 0.1),
        ("Totalt 12 345 kr\nMoms 2 469 kr", 12345, 2469),
        ("Total 1\u202f234\u202f567,50\nTVA 200,00\nTTC 1\u202f234\u202f567,50", 1234567.5, 200.0),
    ],
)
def test_the_total_is_read_as_in_source_reads_it(document: str, right: float, wrong: float) -> None:
    assert score(in_source, document, right) == score(final_total("total"), document, right) == 1.0
    assert score(in_source, document, wrong) == 1.0  # it is printed, and is not the total
    assert score(final_total("total"), document, wrong) == 0.0


@pytest.mark.parametrize("line", [" -1.50", "-$1.50", " (1.50)", "  1.50-"])
def test_a_sign_is_before_behind_or_a_bracket(line: str) -> None:
    start = line.index("1.50")
    assert is_negative(line, start, start + 4)
    assert not is_negative(line.replace("-", " ").replace(")", " "), start, start + 4)


@given(st.text(alphabet="0125 .,'-()\u00a0\u2009\u200b·½²", max_size=20))
def test_no_text_makes_the_grammar_raise(text: str) -> None:
    number_readings(text)


def test_a_mark_that_is_there_twice_or_first_has_one_meaning() -> None:
    assert number_readings("1,234,567") == {1234567.0}
    assert number_readings("1,234") == {1234.0, 1.234}
    assert number_readings(".500") == {0.5}


def test_a_fraction_without_its_zero_is_not_the_whole_number() -> None:
    assert not number_stands(50, "total .50")
    assert number_stands(50, "No.50")
    assert not number_stands(250, "1'250")
    assert not number_stands(2, "2'000")
