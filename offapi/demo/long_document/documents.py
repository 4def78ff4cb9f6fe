"""Made-up agreements of many pages, equal for equal seeds on every machine.

One clause has the notice period and the cap of liability. Other clauses name other periods and
other amounts. Left out: clauses that contradict each other.
"""

from __future__ import annotations

from offapi.data.documents import Document
from offapi.demo.draw import RandomStream
from offapi.demo.facts import Split
from offapi.demo.vendor_agent.companies import draw_companies

PAGES = 45
PAGE = 1800  # characters, about 450 tokens
SEEDS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
_PARTS = (
    "Services", "Deliverables", "Acceptance", "Fees", "Invoices", "Taxes", "Records", "Staff",
    "Premises", "Safety", "Insurance", "Data protection", "Confidentiality", "Audit", "Warranties",
    "Changes", "Delay", "Force majeure", "Subcontracting", "Assignment", "Notices", "Law",
)  # fmt: skip
_SUBJECTS = ("The Supplier", "The Customer", "Each party", "Either party", "The Steering Group")
_DUTIES = (
    "shall keep written records of {thing} for at least {years} years",
    "shall answer a request about {thing} within {days} days",
    "may ask for a report on {thing} once in every {months} months",
    "shall insure {thing} for not less than EUR {amount} for each event",
    "bears the costs of {thing} up to EUR {amount} in a calendar year",
    "shall not pass on {thing} without the written consent of the other party",
    "shall name a person who is responsible for {thing}",
    "shall correct faults in {thing} within {days} days of learning of them",
)
_THINGS = (
    "the equipment", "the deliverables", "the premises", "personal data", "spare parts",
    "the training of staff", "travel", "the documentation", "working time", "the licences",
    "transport", "the interfaces", "complaints", "the stock", "the maintenance plan",
)  # fmt: skip
_ENDS = (
    "", "", ", unless Annex {annex} says otherwise", ", as far as the law allows",
    ", and confirms this in writing", ", at the rates of Annex {annex}",
)  # fmt: skip
# How the clause that is asked for may be worded.
_CLAUSES = (
    "Either party may end this Agreement by giving {notice} days' written notice, and the"
    " Supplier's total liability under it shall not exceed EUR {cap}.",
    "This Agreement runs until one party terminates it with a notice period of {notice} days."
    " Liability of the Supplier is capped in total at EUR {cap}.",
    "The notice period for termination is {notice} days. The total liability of the Supplier,"
    " whatever the ground, is limited to EUR {cap}.",
)


def generate_agreements(
    split: Split, count: int, seed: int = 0, pages: int = PAGES
) -> list[Document]:
    """Generate `count` agreements of `split`, whose gold is `notice_days` and `liability_cap`."""
    return [_agreement(split, i, seed, pages) for i in range(count)]


def _agreement(split: Split, index: int, seed: int, pages: int) -> Document:
    draw = RandomStream(f"offapi long-document {seed} {split} {index}")
    supplier, customer = draw.sample(draw_companies(40, SEEDS[split]), 2)
    notice = draw.pick((14, 30, 45, 60, 90, 120, 180))
    cap = draw.between(4, 900) * 5000
    clause = draw.pick(_CLAUSES).format(notice=notice, cap=_amount(cap))
    paragraphs = [f"FRAMEWORK AGREEMENT between {supplier.name} and {customer.name}"]
    size, number, wanted = 0, 0, draw.between(PAGE, (pages - 1) * PAGE)
    while size < pages * PAGE:
        number += 1
        text = _paragraph(draw)
        if size >= wanted:
            text, wanted = clause, pages * PAGE * 2
        paragraphs.append(f"{number}. {text}")
        size += len(paragraphs[-1]) + 1
    gold = {"notice_days": notice, "liability_cap": cap}
    return Document(f"{split}-{seed}-{index:04}", "\n".join(paragraphs), gold)


def _paragraph(draw: RandomStream) -> str:
    sentences = [_sentence(draw) for _ in range(draw.between(2, 4))]
    return f"{draw.pick(_PARTS)}. {' '.join(sentences)}"


def _sentence(draw: RandomStream) -> str:
    text = f"{draw.pick(_SUBJECTS)} {draw.pick(_DUTIES)}{draw.pick(_ENDS)}."
    return text.format(
        thing=draw.pick(_THINGS),
        years=draw.between(2, 10),
        days=draw.pick((5, 10, 14, 30, 60)),
        months=draw.pick((3, 6, 12)),
        amount=_amount(draw.between(1, 200) * 2500),
        annex=draw.between(1, 9),
    )


def _amount(value: int) -> str:
    return f"{value:,}"
