"""Split rows into those to learn from, those to validate on and those to test on, by a seed.

Rows of one conversation, and documents that are nearly the same, stay together. Left out: strata;
a rare choice may be missing in a part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from offapi.grading.similarity.near_duplicates import Sketches, compare, join
from offapi.grading.similarity.shingles import common, prints
from offapi.init.source import SourceRow
from offapi.randomness import order

SEED = 0
LEAST = 4  # rows that can be split
TEST, VAL = (0.2, 200), (0.1, 64)  # share, and most rows


def split_rows(
    rows: Sequence[SourceRow],
) -> tuple[list[SourceRow], list[SourceRow], list[SourceRow]]:
    """Return the rows to learn from, to validate on and to test on, each in their order."""
    units = _units(rows)
    sizes = [max(1, min(most, round(share * len(rows)))) for share, most in (TEST, VAL)]
    parts: list[list[int]] = [[], []]
    left: list[int] = []
    for at in order(SEED, 0, len(units)):
        unit = units[at]
        free = (i for i in (0, 1) if len(parts[i]) + len(unit) <= sizes[i])
        part = next(free, None)
        (left if part is None else parts[part]).extend(unit)
    train, test, val = (_at(rows, part) for part in (left, *parts))
    return train, val, test


def _at(rows: Sequence[SourceRow], places: Sequence[int]) -> list[SourceRow]:
    return [rows[i] for i in sorted(places)]


def _units(rows: Sequence[SourceRow]) -> list[list[int]]:
    """Return the indices of rows that belong together, in the order of their first row."""
    texts = [row.document for row in rows]
    ignored = common(texts)
    hashes = prints(texts, ignored)
    sketches = Sketches(hashes.whole, hashes.number_sums, hashes.sketches)
    leaders = join(sketches, lambda pairs: compare(pairs, texts.__getitem__, ignored)).tolist()
    first: dict[tuple[str, str], int] = {}
    for i, row in enumerate(rows):
        names = [("text", row.document.strip())]
        if row.chat is not None and row.chat.group is not None:
            names.append(("group", row.chat.group))
        for name in names:
            one, other = _leader(leaders, i), _leader(leaders, first.setdefault(name, i))
            leaders[max(one, other)] = min(one, other)
    units: dict[int, list[int]] = defaultdict(list)
    for i in range(len(rows)):
        units[_leader(leaders, i)].append(i)
    return list(units.values())


def _leader(leaders: list[int], row: int) -> int:
    while leaders[row] != row:
        leaders[row] = row = leaders[leaders[row]]
    return row
