"""Dates in words, numbers and ranges, of many languages and machines."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.checks import Answer, Context, date_order
from offapi.checks.dates import date_readings, month_numbers
from offapi.checks.literals import date_stands

DAY = date(2026, 3, 4)

LANGUAGES = (
    "発行日 2026年3月4日", "2026年03月04日", "令和8年3月4日", "二〇二六年三月四日", "民國115年3月4日", "2026년 3월 4일",
    "4 марта 2026 г.", "4 мар. 2026", "2026. március 4.", "2026. márc. 4-én", "4 de marzo del 2026",
    "4 de març del 2026", "Miércoles, 4 de marzo de 2026", "4. maaliskuuta 2026", "2026 m. kovo 4 d.",
    "2026. gada 4. marts", "4 tháng 3, 2026", "Ngày 4 tháng 3 năm 2026", "4 มีนาคม 2569", "4 มี.ค. 2569",
    "04/03/2569", "4 مارس 2026", "٤ مارس ٢٠٢٦", "4 במרץ 2026", "4 मार्च 2026", "4 Mart 2026", "4. ožujka 2026.",
    "4. března 2026", "4 marca 2026", "4 березня 2026 р.", "4 Μαρτίου 2026", "2026ko martxoaren 4a",
    "4. marts 2026", "4 martie 2026", "4 март 2026 г.", "4 Maret 2026", "Marso 4, 2026", "4º de março de 2026",
    "4° marzo 2026", "4 MÄRZ 2026",
)  # fmt: skip
MACHINES = (
    "Wed Mar 04 10:11:12 CET 2026", "Wed Mar  4 10:11:12 2026", "Wed Mar 4 10:11:12 AM CET 2026",
    "D:20260304120000Z", "D:20260304", "20260304120000", "20260304T101112", "04/Mar/2026:10:11:12 +0100",
    "04-03-'26", "4 March '26", "4 Mar ’26", "4.III.2026", "2026_03_04", "this 4th day of March, 2026",
)  # fmt: skip
ENCODED = (
    "4. Ma\u0308rz 2026", "04–03–2026", "04\u200b/03/2026", "2026\u201103\u201104", "０４／０３／２０２６", "04\u00a003\u00a02026",
)  # fmt: skip


@pytest.mark.parametrize("text", LANGUAGES + MACHINES + ENCODED)
def test_a_day_is_read_in_every_language_and_form(text: str) -> None:
    assert DAY in date_readings(text)
    assert date(2026, 3, 5) not in date_readings(text)


RANGES = (
    ("4–6 March 2026", (4, 3), (6, 3)),
    ("4 to 6 March 2026", (4, 3), (6, 3)),
    ("4. bis 6. März 2026", (4, 3), (6, 3)),
    ("4 au 6 mars 2026", (4, 3), (6, 3)),
    ("del 4 al 6 de marzo de 2026", (4, 3), (6, 3)),
    ("March 4–6, 2026", (4, 3), (6, 3)),
    ("4, 5 and 6 March 2026", (4, 3), (5, 3), (6, 3)),
    ("March 4, 5 and 6, 2026", (4, 3), (5, 3), (6, 3)),
    ("4 March – 3 April 2026", (4, 3), (3, 4)),
    ("March 4 - April 3, 2026", (4, 3), (3, 4)),
    ("04.-06.03.2026", (4, 3), (6, 3)),
    ("04.03.-06.04.2026", (4, 3), (6, 4)),
    ("03/04-04/06/2026", (4, 3), (6, 4)),
    ("2026年3月4日～6日", (4, 3), (6, 3)),
    ("2026年3月4日～4月6日", (4, 3), (6, 4)),
)


@pytest.mark.parametrize("case", RANGES, ids=lambda case: case[0])
def test_both_ends_of_a_range_are_named(case: tuple[str, *tuple[tuple[int, int], ...]]) -> None:
    text, *days = case
    wanted = {date(2026, month, day) for day, month in days}
    assert wanted <= date_readings(text)
    assert date(2026, 3, 7) not in date_readings(text)


def test_a_range_over_new_year_starts_in_the_year_before() -> None:
    assert date(2025, 12, 28) in date_readings("28 Dec - 3 Jan 2026")
    assert date(2026, 12, 28) not in date_readings("28 Dec - 3 Jan 2026")


@pytest.mark.parametrize(
    "text",
    ["24 March 2026", "14–16 March 2026", "2026年3月14日", "Mar 14 10:11:12 CET 2026", "4 March 20265",
     "4 June 2026", "D:20260314", "REG 19- 18/01/2018", "14.III.2026"],
)  # fmt: skip
def test_another_day_is_not_read(text: str) -> None:
    assert DAY not in date_readings(text)


def test_a_number_before_a_date_starts_a_range_only_if_it_is_smaller() -> None:
    assert date(2018, 1, 19) not in date_readings("REG 19- 18/01/2018")
    assert date(2018, 1, 17) in date_readings("17- 18/01/2018")


def test_the_first_year_of_an_era_has_a_name() -> None:
    assert date(2019, 5, 1) in date_readings("令和元年5月1日")
    assert date(2020, 5, 1) in date_readings("令和2年5月1日")


def test_one_name_may_be_two_months() -> None:
    assert month_numbers("listopad") == ("10", "11")
    assert month_numbers("Marraskuuta") == ("11",)
    assert month_numbers("invoice") == ()


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("02/04/2026", True),
        ("on 2.4.26.", True),
        ("102/04/2026", False),
        ("02/04/20261", False),
        ("2026-04-021", False),
        ("12.4.26", False),
        ("2.4.261", False),
    ],
)
def test_a_date_stands_only_where_its_digits_end(text: str, stands: bool) -> None:
    assert date_stands(date(2026, 4, 2), text) is stands


@pytest.mark.parametrize("text", ["03–04–2026", "０３/０４/２０２６", "03\u200b/04/2026"])
def test_the_order_of_a_date_is_read_in_every_form(text: str) -> None:
    answer = Answer("", {"date": "2026-03-04"})
    assert date_order("date")(text, answer, Context()).score == 0.0


@given(st.text(alphabet="0123456 ./-年月日十三March令和~to,", max_size=24))
def test_no_text_makes_the_grammar_raise(text: str) -> None:
    date_readings(text)


def test_the_table_of_months_is_read_only_when_a_date_is() -> None:
    code = "import sys, offapi, offapi.cli; print('offapi.checks.months' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
