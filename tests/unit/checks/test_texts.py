"""Texts: what two texts that mean the same share, and where a text stands in a document."""

from __future__ import annotations

import pytest
import reached
from hypothesis import given
from hypothesis import strategies as st

from offapi.checks import Answer, Context, in_header, in_source, legal_name
from offapi.checks.gold import same_value
from offapi.checks.in_source import value_occurs
from offapi.text.fold import fold
from offapi.text.normalise import bare, bare_words, text_key

DIFFERENT = [
    ("12.34", "1234"), ("1.5 kg", "15 kg"), ("7.5%", "75%"), ("-5", "5"), ("A+", "A-"), ("A-", "A"),
    ("C++", "C"), ("C#", "C"), ("<5", "> 5"), ("$5", "€5"), ("1/2", "12"), ("½", "12"), ("1½", "11/2"),
    ("1 1/2", "11/2"), ("10:30", "1030"), ("2-3", "23"), ("50%", "50"), ("5°C", "5C"), ("±5", "5"),
    ("≥5", ">5"), ("O+", "O-"), ("A*", "A"), ("john.doe@x.com", "johndoe@x.com"), ("(5)", "5"),
    ("(1,234.50)", "1,234.50"), ("5-", "5"), ("10²", "102"), ("10, 20", "1020"), (".5", "5"),
    ("3 × 4", "34"), ("✓", "✗"), ("Great 👍", "Great 👎"), ("AA+", "AA"), ("BBB-", "BBB"), ("~5", "5"),
    ("1.5", "1,5"), ("-$5", "$5"), ("#1", "#2"), ("5 - 7", "57"), ("https://a-b.com", "https://ab.com"),
]  # fmt: skip
EQUAL = [
    ("FOO LTD.", "Foo Ltd"), ("1,234.50", "1,234.50"), ("O’Neill & Co", "O'Neill & Co."),
    ("Jean-Luc", "Jean Luc"), ("INV-5", "INV 5"), ("No.5", "No 5"), ("Foo (2019)", "Foo 2019"),
    ("2019–2020", "2019 - 2020"), ("Foo™", "Foo"), ("“Foo”", "Foo"), ("１２", "12"),
    ("St. John's", "St Johns"), ("J.P. Morgan", "JP Morgan"), ("−5", "-5"), ("(5)", "-5"), ("5 %", "5%"),
    ("1 234", "1234"), ("m²", "m2"), ("AT&T", "AT & T"), ("Foo - Bar", "Foo Bar"), ("Yahoo!", "yahoo"),
    ("ﬁn", "fin"), ("Foo\u200b Bar", "Foo Bar"), ("=== Foo ===", "Foo"), ("Foo*", "Foo"),
    ("A@x.com.", "a@X.com"), ("٥", "5"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_texts_with_another_value_differ(answer: str, gold: str) -> None:
    assert not same_value("text", answer, gold)
    assert not same_value("text", gold, answer)


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_texts_in_another_spelling_are_equal(answer: str, gold: str) -> None:
    assert same_value("text", answer, gold)
    assert same_value("text", gold, answer)


@reached.at_least(20)
@given(st.text(max_size=30) | st.text(st.characters(codec="ascii"), max_size=30))
def test_the_key_of_a_text_keeps_its_letters_and_digits(text: str) -> None:
    if text.isascii():
        reached.hit()
        assert fold(text) == text or "&" in text
        assert [char for char in text_key(text) if char.isalnum()] == list(bare(fold(text)))
    assert "".join(bare_words(text)) == bare(text)


STANDS = [
    ("ACME TRADING LIMITED", "ACME TRADlNG L1MITED"),
    ("DE89370400440532013000", "IBAN DE89 3704 0044 0532 0130 00"),
    ("AB", "AB Cables Inc"),
    ("AB", "(AB)"),
    ("5", "5kg"),
    ("14", "14/03/2026"),
    ("2026", "04.03.2026"),
    ("INV-2026-00417", "INV-2O26-OO417"),
    ("Shop 24 Ltd", "SH0P 24 LTD"),
    ("Foo GmbH 12", "Foo GmbH 12"),
    ("ACME TRADING", "ACM TRADlNG 14 Mill Lane"),
    ("ACME TRADING 12", "ACME TRADlNG 12"),
    ("12 High Street", "12 High Str33t"),
    ("株式会社アクメ", "株式会社 アクメ様"),
    ("Müller GmbH", "MU\u0308LLER GMBH"),
    ("7.5 %", "7,5%"),
    ("1,234.50", "1234.50"),
    ("04/03/2026", "04.03.2026"),
    ("10:30", "10.30 Uhr"),
    ("C", "C++, C and Go"),
    ("C++", "uses C++."),
    ("-5", "at −5 degrees"),
    ("A", "A-Team"),
    ("$1,234.50", "USD 1,234.50"),
]
DOES_NOT = [
    ("INV-2026-00471", "Invoice INV-2026-00417"),
    ("INV-2026-0041", "INV-2026-00417"),
    ("DE89370400440532013001", "IBAN DE89370400440532013000"),
    ("AB", "CABLES INC"),
    ("14", "Voucher 1814 from Bar"),
    ("14", "18.14"),
    ("14", "1,814"),
    ("Ann", "Annual report"),
    ("Flat 5 Rose House", "Flat Rose House"),
    ("Flat Rose House", "Flat 5 Rose House"),
    ("13 High Street", "12 High Street"),
    ("1234", "12345"),
    ("12345", "123456"),
    ("Invoice 2026-118 of ACME", "Invoice 2026-181 of ACME"),
    ("+49 30 1234567", "+49 30 1234568"),
    ("INV2026-0417A", "INV2026-0417B"),  # half digits: a code
    ("Harlow Timber Yard", "Harlow Tinder Bank"),  # too many letters for a scan
    ("ACME TRADING 12", "ACME TRADlNG 123"),
    ("12 ACME TRADING", "312 ACME TRADlNG"),
    ("1.5 kg", "weight: 15 kg"),
    ("15 kg", "weight: 1.5 kg"),
    ("7.5%", "75%"),
    ("3.14", "314"),
    ("0.125 mg", "0125 mg"),
    ("St. Gallen 1.2", "St Galen 12"),
    ("A+", "A- A"),
    ("A", "grade A-"),
    ("A-", "grade A"),
    ("C", "C++ developer"),
    ("C++", "C developer"),
    ("-5", "5 points"),
    ("5%", "5 points"),
    ("<5", "value > 5"),
]


@pytest.mark.parametrize(("text", "document"), STANDS)
def test_a_text_is_found_but_for_a_scans_letters(text: str, document: str) -> None:
    assert value_occurs("text", text, document)


@pytest.mark.parametrize(("text", "document"), DOES_NOT)
def test_a_text_with_another_number_or_inside_a_word_is_not_found(text: str, document: str) -> None:
    assert not value_occurs("text", text, document)


def test_an_exact_text_stands_letter_for_letter_as_a_word() -> None:
    assert value_occurs("exact", "INV-17", "Ref: INV-17.")
    assert value_occurs("exact", "INV-17", "INV-170 INV\u201117")
    for document in ("inv-17", "INV 17", "INV-170", "XINV-17", ""):
        assert not value_occurs("exact", "INV-17", document)
    assert value_occurs("exact", 17, "No 17")
    assert not value_occurs("exact", 17, "No 18")


def test_nulls_are_never_below_an_invention() -> None:
    document = "Cover letter. See the invoice enclosed."
    context = Context({}, {"vendor": "text", "date": "date", "total": "number"})
    nulls = Answer("", {"vendor": None, "date": None, "total": None})
    assert in_source(document, nulls, context).score == 1.0
    assert in_source(document, Answer("", {}), context).score == 1.0
    assert in_source(document, Answer("", {"vendor": " "}), context).score == 1.0
    assert in_source(document, Answer("", {"vendor": "Foo"}), context).score == 0.0
    for check in (in_header("vendor"), legal_name("vendor")):
        assert check("12.50\nFoo Ltd", nulls, context).score == 1.0
        assert check("12.50\nFoo Ltd", Answer("", {"vendor": "Bar Ltd"}), context).score == 0.0
