"""Normal forms of texts, numbers and dates."""

from __future__ import annotations

from datetime import date
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.text.normalise import bare, is_number, iso_date


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ACME Ltd. (2026)", "acmeltd2026"),
        ("Straße", "strasse"),
        ("ﬁne ①", "fine1"),
        ("e\u0301", "é"),
        ("हिन्दी", "हिन्दी"),
        ("x\u0323", "x"),
        ("– !", ""),
    ],
)
def test_only_letters_and_digits_remain(text: str, left: str) -> None:
    assert bare(text) == left


@given(st.text(max_size=60))
def test_case_and_punctuation_do_not_count(text: str) -> None:
    assert bare(bare(text)) == bare(text)
    assert bare(f" {text}-!") == bare(text)


def test_true_is_not_a_number() -> None:
    numbers = [is_number(value) for value in (0, 1.5, inf, True, False, "1", None)]
    assert numbers == [True, True, True, False, False, False, False]


@given(st.dates())
def test_a_date_comes_back_from_its_spelling(day: date) -> None:
    assert iso_date(day.isoformat()) == day


@pytest.mark.parametrize(
    "text", ["", "2026-02-30", "20260402", "2026-4-2", "2026-W14-4", "2026-04-02T10", "٢٠٢٦-٠٤-٠٢"]
)
def test_anything_else_is_not_a_date(text: str) -> None:
    assert iso_date(text) is None
