"""Split documents into those to learn from and those held out, by a seed.

Left out: a user's own held-out file, which needs no split.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.data.documents import Document
from offapi.randomness import order

SHARE, LEAST, MOST = 0.1, 8, 64  # of the documents that are held out


def hold_out(
    rows: Sequence[Document], seed: int, learned: frozenset[str] = frozenset()
) -> tuple[list[Document], list[Document]]:
    """Return `rows` without a tenth drawn by `seed`, and that tenth.

    Documents whose text is in `learned` are held out only where there are too few others.
    """
    count = min(max(round(SHARE * len(rows)), LEAST), MOST)
    drawn = sorted(order(seed, 0, len(rows)), key=lambda i: rows[i].text in learned)
    chosen = set(drawn[:count])
    held_out = [rows[i] for i in sorted(chosen)]
    return [row for i, row in enumerate(rows) if i not in chosen], held_out
