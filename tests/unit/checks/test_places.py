"""Where documents print values: every span holds a spelling of the value."""

from __future__ import annotations

from datetime import date

import pytest

from offapi.checks.dates import date_readings
from offapi.checks.numbers import number_readings
from offapi.checks.places import where

PAGE = """ACME  Trading
Sdn. Bhd.
Date: 04/03/2026  Due 18 March 2026
Tea 1,234.50   RM12.37
TOTAL (12.37)   CASH 20.00
acme trading"""


def shown(kind: object, value: object, document: str = PAGE) -> list[str]:
    return [document[start:end] for start, end in where(kind, value, document)]  # type: ignore[arg-type]


def test_numbers_are_found_with_their_marks_alone() -> None:
    assert shown("number", 1234.5) == ["1,234.50"]
    assert shown("number", 12.37) == ["12.37", "12.37"]
    assert shown("number", -20) == ["20.00"]
    assert shown("number", 12.38) == []


def test_dates_are_found_however_they_are_written() -> None:
    assert shown("date", "2026-03-04") == ["04/03/2026"]
    assert shown("date", "2026-04-03") == ["04/03/2026"]
    assert shown("date", "2026-03-18") == ["18 March 2026"]
    assert shown("date", "2026-03-19") == []


def test_every_occurrence_of_a_date_in_a_line_is_found() -> None:
    assert shown("date", "2026-03-04", "from 04/03/2026 to 04/03/2026, 5 nights") == [
        "04/03/2026",
        "04/03/2026",
    ]


def test_texts_are_found_as_printed_then_by_letters_then_nearly() -> None:
    assert shown("text", "ACME Trading") == ["ACME  Trading"]
    assert shown("text", "ACME Trading Sdn. Bhd.") == ["ACME  Trading\nSdn. Bhd."]
    assert shown("text", "Acme trading sdn bhd") == ["ACME  Trading\nSdn. Bhd"]
    assert shown("text", "ACNE Tradlng Sdn Bhd", PAGE)[0].startswith("ACME  Trading")
    assert shown("text", "CME") == []
    assert shown("text", "Globex") == []


def test_places_are_of_the_document_as_it_is_not_as_it_is_folded() -> None:
    page = "Café\u00a0Ölberg ﬁne\nBetrag：１２，５０ €\n合計 ２０２６年３月４日"
    assert shown("number", 12.5, page) == ["１２，５０"]
    assert shown("text", "Café Ölberg", page) == ["Café\u00a0Ölberg"]
    assert shown("date", "2026-03-04", page) == ["２０２６年３月４"]


@pytest.mark.parametrize("value", [None, True, ["ACME"], {"a": 1}])
def test_what_documents_do_not_print_has_no_place(value: object) -> None:
    assert shown("text", value) == []


def test_a_place_is_where_the_checks_read_the_value() -> None:
    for number in number_readings(PAGE):
        assert all(number in number_readings(text) for text in shown("number", number))
    for day in date_readings(PAGE):
        found = shown("date", day.isoformat())
        assert found, day
        assert all(day in date_readings(text) for text in found)
    assert date(2026, 3, 18) in date_readings(PAGE)
