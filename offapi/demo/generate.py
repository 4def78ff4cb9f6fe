"""Synthetic invoices and receipts with known answers, equal for equal seeds on every machine.

No vendor is in two splits, and test has layouts that train and val lack. A fifth of the pages
look scanned. Left out: pages from which a person could not read the answer.
"""

from __future__ import annotations

from collections.abc import Set

from offapi.data.documents import Document
from offapi.demo.draw import RandomStream
from offapi.demo.facts import Facts, Split, draw_facts
from offapi.demo.layouts import SHARED, TEST_ONLY

SCANNED = 0.2  # share of pages
_CONFUSED = {
    "o": "0",
    "O": "0",
    "l": "1",
    "I": "l",
    "S": "5",
    "B": "8",
    "e": "c",
    "a": "o",
    "m": "rn",
}


def generate(split: Split, count: int, seed: int = 0) -> list[Document]:
    """Generate `count` documents of `split` with gold vendor, date and total.

    A smaller `count` gives the first documents of a larger one.
    """
    return [_document(split, i, seed) for i in range(count)]


def _document(split: Split, index: int, seed: int) -> Document:
    draw = RandomStream(f"offapi demo {seed} {split} {index}")
    facts = draw_facts(draw, split)
    layout = draw.pick((*SHARED, *TEST_ONLY) if split == "test" else SHARED)
    lines = layout(facts, draw)
    if draw.chance(SCANNED):
        lines = [_scan(line, facts, draw) for line in lines]
    gold = {
        "vendor": facts.vendor,
        "date": facts.day.isoformat(),
        "total": facts.money.value(facts.total),
    }
    return Document(f"{split}-{seed}-{index:04}", "\n".join(lines), gold)


def _scan(line: str, facts: Facts, draw: RandomStream) -> str:
    """Return `line` as a poor scan would read it.

    The vendor's words and words with digits stay, so that the answer stays readable.
    """
    kept = {*facts.vendor.lower().split(), *facts.written(facts.day).lower().split()}
    return " ".join(word if _stays(word, kept) else _blur(word, draw) for word in line.split(" "))


def _stays(word: str, kept: Set[str]) -> bool:
    return word.lower().strip(":,") in kept or any(char.isdigit() for char in word)


def _blur(word: str, draw: RandomStream) -> str:
    return "".join(
        _CONFUSED[char] if char in _CONFUSED and draw.chance(0.06) else char for char in word
    )
