"""Receipts with a garbled vendor, whose answer carries the name in the register.

No company is in two splits. Address or number are printed where the name alone would not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from offapi.data.documents import Document
from offapi.demo.draw import RandomStream
from offapi.demo.facts import Split, draw_facts
from offapi.demo.layouts import SHARED, TEST_ONLY
from offapi.demo.vendor_agent.companies import Company
from offapi.demo.vendor_agent.printed import print_name

# Of ten companies, those whose number ends so belong to a split.
_ENDINGS: dict[Split, str] = {"train": "012345", "val": "67", "test": "89"}


@dataclass(frozen=True)
class Receipt:
    """A document, the name as it is printed there, and the company that is meant."""

    document: Document
    printed: str
    company: Company


def generate_receipts(
    companies: Sequence[Company], split: Split, count: int, seed: int = 0
) -> list[Receipt]:
    """Generate `count` receipts of companies of `split`; gold has the registered name."""
    known = [each for each in companies if each.number[-1] in _ENDINGS[split]]
    return [_receipt(known, companies, split, i, seed) for i in range(count)]


def _receipt(
    known: Sequence[Company], companies: Sequence[Company], split: Split, index: int, seed: int
) -> Receipt:
    draw = RandomStream(f"offapi vendor-agent {seed} {split} {index}")
    company, other = draw.pick(known), draw.pick(companies)
    printed = print_name(company.name, draw)
    facts = replace(draw_facts(draw, split), vendor=printed)
    if draw.chance(0.3):  # a customer that is a company of the register too
        facts = replace(facts, customer=other.name)
    layout = draw.pick((*SHARED, *TEST_ONLY) if split == "test" else SHARED)
    lines = layout(facts, draw)
    at = next(i for i, line in enumerate(lines) if printed.lower() in line.lower())
    lines[at + 1 : at + 1] = [company.address, f"Reg. no. {company.number}"][: draw.between(1, 2)]
    gold = {
        "vendor": company.name,
        "date": facts.day.isoformat(),
        "total": facts.money.value(facts.total),
    }
    return Receipt(Document(f"{split}-{seed}-{index:04}", "\n".join(lines), gold), printed, company)
