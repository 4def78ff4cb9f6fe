"""The demo's documents: deterministic, disjoint by split, readable, with their answers."""

from __future__ import annotations

import hashlib
import re
from datetime import date

import pytest

from offapi.checks.in_source import value_occurs
from offapi.data.documents import Document, fields_of
from offapi.demo.draw import RandomStream
from offapi.demo.facts import POUND, DateStyle, Facts, Item, Money, Split, draw_facts, spell
from offapi.demo.generate import generate
from offapi.demo.layouts import SHARED, TEST_ONLY
from offapi.demo.task import task
from offapi.text.normalise import bare

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def fingerprint(rows: list[Document]) -> str:
    return hashlib.sha256(
        "\0".join(f"{row.id}\n{row.text}\n{row.gold}" for row in rows).encode()
    ).hexdigest()[:16]


def test_the_seed_decides_every_document() -> None:
    assert fingerprint(generate("train", 30)) == fingerprint(generate("train", 30, 0))
    assert generate("train", 30)[:10] == generate("train", 10)
    assert fingerprint(generate("train", 30)) != fingerprint(generate("train", 30, 1))
    assert len({row.text for split in SPLITS for row in generate(split, 200)}) == 600


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_in_its_document(split: Split) -> None:
    for row in generate(split, 300):
        assert row.gold is not None
        task.check_gold(row.gold, row=row.id)
        for name, kind in task.match.items():
            assert value_occurs(kind, fields_of(row.gold)[name], row.text), (name, row)
        assert task.grade(row.text, task.answer_text(row.gold)).score == 1.0


def test_scans_leave_the_vendor_readable() -> None:
    for row in generate("train", 2000):
        assert bare(str(fields_of(row.gold)["vendor"])) in bare(row.text), row


def test_vendors_do_not_cross_splits() -> None:
    vendors = {
        split: {str(fields_of(row.gold)["vendor"]) for row in generate(split, 400)}
        for split in SPLITS
    }
    pairs: tuple[tuple[Split, Split], ...] = (("train", "val"), ("train", "test"), ("val", "test"))
    for one, other in pairs:
        assert not vendors[one] & vendors[other]
        assert not {name.split()[0] for name in vendors[one]} & {
            name.split()[0] for name in vendors[other]
        }
    assert len(vendors["train"]) > 250


def test_test_has_layouts_that_train_and_val_lack() -> None:
    assert len(SHARED) >= 10
    assert len(TEST_ONLY) >= 3
    marks = ("guest folio", "Bill date", "Sold by", "Received from")
    texts = {split: "\n".join(row.text for row in generate(split, 200)) for split in SPLITS}
    assert all(re.search(mark, texts["test"]) for mark in marks)
    assert not any(mark in texts[split] for mark in marks for split in ("train", "val"))


def test_pages_are_mixed_and_short() -> None:
    rows = generate("train", 300)
    text = "\n".join(row.text for row in rows)
    for mark in (
        "£",
        "$",
        "€",
        "RM",
        "CHF",
        "CASH",
        "CHANGE",
        "Due date",
        "Subtotal",
        "Delivery",
        "VAT",
        "Bill to",
    ):
        assert mark in text, mark
    for style in (
        r"\d{4}-\d\d-\d\d",
        r"\d\d/\d\d/\d{4}",
        r"\d\d\.\d\d\.\d{4}",
        r"\d [A-Z][a-z]+ \d{4}",
        r"\d-[A-Z][a-z]+-\d",
    ):
        assert re.search(style, text), style
    assert max(len(row.text) for row in rows) < 400
    assert 100 < sum(len(row.text) for row in rows) / len(rows) < 200


@pytest.mark.parametrize("split", SPLITS)
def test_no_date_is_ambiguous(split: Split) -> None:
    found = dollars = 0
    for i in range(800):
        facts = draw_facts(RandomStream(f"dates {i}"), split)
        if facts.style == "us":
            found += 1
            assert facts.day.day > 12
            assert facts.money.before == "$"
        if facts.money.before == "$":
            dollars += 1
            assert facts.style != "slash"
    assert found > 5
    assert dollars >= found


def test_amounts_add_up() -> None:
    items = (Item("a", 3, 1250), Item("b", 1, 499))
    facts = Facts(
        "v", "c", "n", date(2026, 4, 2), date(2026, 5, 2), "09:00", items, 850, 20, POUND, "iso"
    )
    assert (facts.net, facts.tax, facts.total, facts.tendered) == (5099, 1020, 6119, 8000)
    assert facts.money(facts.total) == "£61.19"
    assert facts.money.value(facts.total) == 61.19
    for i in range(200):
        drawn = draw_facts(RandomStream(f"sums {i}"), "train")
        assert drawn.total == sum(item.amount for item in drawn.items) + drawn.extra + drawn.tax
        assert 0 < drawn.tendered - drawn.total <= 2000


def test_money_and_dates_follow_their_style() -> None:
    assert Money("", " €", ".", ",")(123450) == "1.234,50 €"
    assert Money("CHF ", "", "'", ".")(123405) == "CHF 1'234.05"
    day = date(2026, 4, 2)
    written: dict[DateStyle, str] = {
        "iso": "2026-04-02",
        "slash": "02/04/2026",
        "us": "04/02/2026",
        "dots": "02.04.2026",
        "long": "2 April 2026",
        "us long": "April 2, 2026",
        "short": "02-Apr-26",
        "caps": "02 APR 2026",
    }
    assert {style: spell(day, style) for style in written} == written
