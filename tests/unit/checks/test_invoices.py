"""The checks of invoices: who was paid, in which order a date is, what was finally to be paid."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offapi.checks import Check, Context, date_order, final_total, in_header, legal_name
from offapi.checks.invoices.date_order import Order
from offapi.checks.invoices.seller import header
from offapi.checks.verdict import Answer
from offapi.task import load_task

RECEIPT = """\
TAX INVOICE
HILLTOP BAKERY
OWNED BY BREAD & SONS LTD (20391-K)
14 Mill Lane, Harlow
CASH SALE RECEIPT
Sold to: Harbour Works GmbH
DATE 03/04/2026 10:15
Rye loaf 4.48
SUBTOTAL 4.48
TOTAL INCL. VAT 4.48
ROUNDING 0.02
TOTAL 4.50
CASH 5.00
CHANGE 0.50
"""


def score(check: Check, document: str, value: dict[str, Any] | None) -> float:
    verdict = check(document, Answer("", value, "not JSON: x" if value is None else ""), Context())
    assert verdict.reason
    return verdict.score


@pytest.mark.parametrize(
    ("vendor", "in_the_header", "legal"),
    [
        ("Owned by Bread & Sons Ltd.", 1.0, 1.0),
        ("Owned by Bread & Sons Ltd (20391-K)", 1.0, 1.0),
        ("Hilltop Bakery owned by Bread & Sons Ltd", 1.0, 1.0),
        ("Hilltop Bakery", 1.0, 0.0),
        ("Hilltop", 0.0, 0.0),
        ("Bread & Son Ltd", 0.0, 0.0),
        ("Harbour Works GmbH", 0.0, 0.0),
        ("Tax invoice", 0.0, 0.0),
        ("", 0.0, 0.0),
        (None, 1.0, 1.0),  # the schema says whether it may be null
        (7, 0.0, 0.0),
    ],
)
def test_the_seller_is_the_company_or_a_line_of_the_header(
    vendor: object, in_the_header: float, legal: float
) -> None:
    assert score(in_header("vendor"), RECEIPT, {"vendor": vendor}) == in_the_header
    assert score(legal_name("vendor"), RECEIPT, {"vendor": vendor}) == legal


@pytest.mark.parametrize(
    "name",
    [
        "Müller & Söhne GmbH",
        "Vidal S.A.",
        "NORTE LDA",
        "Blue Fin Sdn Bhd",
        "Acme Holding AG",
        "Rossi S.r.l.",
    ],
)
def test_legal_forms_are_known_in_many_countries(name: str) -> None:
    document = f"Corner Shop\n{name} 88123-X\nRua Nova 1\nTOTAL 5.00"
    assert score(legal_name("v"), document, {"v": name}) == 1.0
    assert score(legal_name("v"), document, {"v": "Corner Shop"}) == 0.0


def test_without_a_legal_form_any_name_may_be_right() -> None:
    for line in ("SHOP WITH US AS FAMILY", "OPEN LATE SA", "Cincinnati"):
        document = f"Corner Shop\n{line} 12\nTOTAL 5.00"
        wanted = 0.0 if line.endswith("SA") else 1.0
        assert score(legal_name("v"), document, {"v": "Corner Shop"}) == wanted
    assert score(legal_name("v"), "Corner Shop", None) == 0.0
    assert score(in_header("v"), "Corner Shop", None) == 0.0


def test_a_name_broken_over_lines_is_one_name() -> None:
    document = "NORTHERN\nTIMBER (WEST)\nYARD LTD\n1 Quay"
    assert score(in_header("v"), document, {"v": "Northern Timber (West) Yard Ltd"}) == 1.0
    assert score(legal_name("v"), document, {"v": "Northern Timber (West) Yard Ltd"}) == 1.0


def test_the_header_ends_at_a_heading_and_skips_long_lines() -> None:
    assert header(RECEIPT) == [
        "HILLTOP BAKERY",
        "OWNED BY BREAD & SONS LTD (20391-K)",
        "14 Mill Lane, Harlow",
    ]
    assert header("x" * 500 + "\nA\n\nB") == ["A", "B"]
    assert header("") == []


@pytest.mark.parametrize(
    ("document", "answer", "default", "wanted"),
    [
        ("03/04/2026", "2026-04-03", "day", 1.0),
        ("03/04/2026", "2026-03-04", "day", 0.0),
        ("03/04/2026", "2026-03-04", "month", 1.0),
        ("03/04/2026 printed 17/04/2026", "2026-03-04", "month", 0.0),
        ("03/04/2026 printed 04/17/2026", "2026-03-04", "day", 1.0),
        ("Salem, OR 97301 03/04/2026", "2026-03-04", "day", 1.0),
        ("Salem, OR 97301 03/04/2026", "2026-04-03", "day", 0.0),
        ("SELANGOR 43800 03/04/2026", "2026-03-04", "day", 0.0),
        ("Call (503) 555-0142 03/04/2026", "2026-03-04", "day", 1.0),
        ("23-03-18", "2018-03-23", "day", 1.0),
        ("23-03-18", "2023-03-18", "day", 0.0),
        ("23-03-18", "2023-03-18", "year", 1.0),
        ("2026-04-03", "2026-04-03", "day", 1.0),
        ("REG 19- 03/04/2026", "2026-03-04", "day", 0.0),
        ("3 April 2026", "2026-04-03", "day", 1.0),  # nothing to judge: in_source does
        ("nothing", "2026-04-03", "day", 1.0),
        ("03/04/2026", None, "day", 1.0),
    ],
)
def test_a_date_is_read_in_its_documents_order(
    document: str, answer: str, default: Order, wanted: float
) -> None:
    assert score(date_order("date", default), document, {"date": answer}) == wanted
    assert score(date_order("date", default), document, None) == 0.0


@given(st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.sampled_from("/-."))
def test_the_documents_own_order_is_never_refused(day: date, mark: str) -> None:
    text = f"{day.day:02}{mark}{day.month:02}{mark}{day.year}"
    assert score(date_order("d"), text, {"d": day.isoformat()}) == 1.0


@pytest.mark.parametrize(
    ("document", "total", "wanted"),
    [
        (RECEIPT, 4.5, 1.0),
        (RECEIPT, 4.48, 0.0),  # before rounding
        (RECEIPT, 5.0, 0.0),  # the cash
        (RECEIPT.replace("CHANGE 0.50", ""), 4.5, 1.0),
        (RECEIPT.replace("CHANGE 0.50", ""), 4.48, 0.0),
        (RECEIPT.replace("CHANGE 0.50", ""), 5.0, 0.0),
        ("Amount due: £1,234.50\nSubtotal 1,200.00", 1234.5, 1.0),
        ("Amount due: £1,234.50\nSubtotal 1,200.00", 1200, 0.0),
        ("TOTAL\n12.50\nVAT 2.50", 12.5, 1.0),
        ("TOTAL\n12.50\nVAT 2.50", 2.5, 0.0),
        ("Gesamtbetrag 1.234,50 EUR\nMwSt 100,00", 1234.5, 1.0),
        ("Gesamtbetrag 1.234,50 EUR\nMwSt 100,00", 100, 0.0),
        ("TOTAL 43,000\nCASH 50,000\nCHANGE 7,000", 43000, 1.0),
        ("TOTAL 43,000\nCASH 50,000\nCHANGE 7,000", 50000, 0.0),
        ("TOTAL 20.01\nRND ADJ .01-\nVISA 20.00", 20.0, 1.0),
        ("TOTAL 20.01\nRND ADJ .01-\nVISA 20.00", 20.01, 0.0),
        ("TOTAL QTY 3 9.99\nTOTAL 9.50", 9.99, 0.0),
        ("TOTAL GST 0.51\nTOTAL 9.50", 0.51, 0.0),
        ("A payer: 1 234,50", 1234.5, 1.0),
        ("TOTAL 65 .70", 65.7, 1.0),
        ("TOTAL RM65.72\nROUNDING -RM0.02\nTOTAL RM65.70", 65.72, 0.0),
        ("TOTAL 12.50 2.08", 12.5, 1.0),  # two columns
        ("TOTAL 12.50 2.08", 2.08, 1.0),
        ("TOTAL 1.00 12.50 2.08", 1.0, 0.0),
        ("TOTAL (12.50)\nVAT (2.50)", 12.5, 1.0),
        ("TOTAL (12.50)\nVAT (2.50)", -12.5, 1.0),
        ("TOTAL (12.50)\nVAT (2.50)", 2.5, 0.0),
        ("TOTAL -12.50\nVAT -2.50", 12.5, 0.0),
        ("coffee 3.00\ncake 4.00", 7.0, 1.0),  # the document says nothing
        (RECEIPT, "4.50", 0.0),
        (RECEIPT, None, 1.0),  # the schema says whether it may be null
    ],
)
def test_the_total_is_what_was_finally_paid(document: str, total: object, wanted: float) -> None:
    assert score(final_total("total"), document, {"total": total}) == wanted
    assert score(final_total("total"), document, None) == 0.0


@given(st.text(max_size=200), st.text(max_size=20), st.floats(allow_nan=False))
def test_no_document_makes_a_check_raise(document: str, text: str, number: float) -> None:
    for check in (in_header("a"), legal_name("a"), date_order("a"), final_total("b")):
        assert 0.0 <= score(check, document, {"a": text, "b": number}) <= 1.0


def test_a_task_file_imports_its_own_package_of_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lib" / "their_checks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "contracts.py").write_text(OWN_CHECK)
    (tmp_path / "task.py").write_text(OWN_TASK)
    monkeypatch.syspath_prepend(package.parent)
    task = load_task(tmp_path / "task.py")
    assert task.grade("Signed by Ann.", '{"signer": "Ann"}').score == 1.0
    assert task.grade("Signed by Ann.", '{"signer": "Ben"}').parts["signed"].reason == "Ben?"


OWN_CHECK = """\
from offapi.checks import Verdict

def signed(field):
    def check(document, answer, context):
        name = (answer.value or {}).get(field)
        return Verdict(float(f"Signed by {name}" in document), f"{name}?")
    return check
"""
OWN_TASK = """\
import offapi
from their_checks.contracts import signed

task = offapi.Task(
    name="mine",
    instructions="Read.",
    schema={"type": "object", "properties": {"signer": {"type": "string"}}},
    checks={"signed": (signed("signer"), 1.0)},
    match={"signer": "text"},
)
"""
