"""Rows to learn from that are near an evaluation document and would spoil the evaluation.

A row is near if it holds half of the evaluation document's runs of three words and nine tenths of
its numbers. A second scan of a document does; another receipt of the same shop seldom does. What
many documents share does not count. The search is exact, by the rarest parts, of which one must be
present (prefix filtering: Chaudhuri, Ganti and Kaushik, ICDE 2006). Left out: translations and
paraphrases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.grading.similarity.shingles import NOTHING, Hashes, Prints, common, pieces, prints

RUNS, NUMBERS = 0.5, 0.9  # shares of the evaluation document's


@dataclass(frozen=True)
class Near:
    """A row and an evaluation document, by index, and the shares of it that the row holds."""

    row: int
    document: int
    runs: float
    numbers: float


@dataclass(frozen=True)
class Pair:
    """A `Near` by id."""

    row: str
    document: str
    runs: float
    numbers: float


def near(texts: Sequence[str], evaluation: Sequence[str]) -> list[Near]:
    """Return every pair of a text and an evaluation document that it is near, by text."""
    ignored = np.union1d(common(texts), common(evaluation))
    index, start, pairs = Evaluation(evaluation, ignored), 0, []
    for piece in pieces(texts):
        pairs += index.near(prints(piece, ignored), start)
        start += len(piece)
    return pairs


def near_or_same(texts: Sequence[str], held: Sequence[str]) -> set[int]:
    """Return the indices of the texts that are, or are near, one of the held-out texts."""
    if not texts or not held:
        return set()
    same = set(held)
    spoiled = {pair.row for pair in near(texts, held)}
    return spoiled.union(i for i, text in enumerate(texts) if text in same)


class Evaluation:
    """Evaluation documents to look rows up in; `common` holds runs that do not count."""

    def __init__(self, documents: Sequence[str], common: Hashes = NOTHING) -> None:
        self._runs: list[Hashes] = []
        self._numbers: list[Hashes] = []
        for piece in pieces(documents):
            hashes = prints(piece, common)
            self._runs += [hashes.runs_of(i) for i in range(len(hashes.whole))]
            self._numbers += [hashes.numbers_of(i) for i in range(len(hashes.whole))]
        self._by_run, self._by_number = _Index(self._runs, RUNS), _Index(self._numbers, NUMBERS)
        self._bare = np.array(
            [i for i, numbers in enumerate(self._numbers) if not len(numbers)], np.int64
        )

    def near(self, rows: Prints, start: int = 0) -> list[Near]:
        """Return the pairs among `rows`, in their order; `start` is the index of the first row."""
        count = len(self._runs)
        pairs = self._by_run.pairs(rows.runs, rows.run_starts)
        if len(pairs):
            numbered = np.isin(pairs, self._by_number.pairs(rows.numbers, rows.number_starts))
            pairs = pairs[numbered | np.isin(pairs % count, self._bare)]
        return list(self._checked(rows, pairs, start))

    def _checked(self, rows: Prints, pairs: NDArray[np.int64], start: int) -> Iterator[Near]:
        for row, document in zip(
            *(side.tolist() for side in np.divmod(pairs, len(self._runs))), strict=True
        ):
            runs = _held(self._runs[document], rows.runs_of(row))
            numbers = _held(self._numbers[document], rows.numbers_of(row))
            if runs >= RUNS and numbers >= NUMBERS:
                yield Near(start + row, document, runs, numbers)


class _Index:
    """Documents by their rarest hashes.

    Enough of them that a row which holds `share` of all must hold one of these.
    """

    def __init__(self, sets: Sequence[Hashes], share: float) -> None:
        values, counts = np.unique(np.concatenate([*sets, NOTHING]), return_counts=True)
        keys, owners = [NOTHING], [np.empty(0, np.int64)]
        for i, hashes in enumerate(sets):
            needed = int(np.ceil(share * len(hashes) - 1e-9))
            rarest = np.argsort(counts[np.searchsorted(values, hashes)], kind="stable")[
                : len(hashes) - needed + 1
            ]
            keys.append(hashes[rarest])
            owners.append(np.full(len(keys[-1]), i, np.int64))
        order = np.argsort(np.concatenate(keys), kind="stable")
        self._keys, self._owners, self._count = (
            np.concatenate(keys)[order],
            np.concatenate(owners)[order],
            len(sets),
        )

    def pairs(self, hashes: Hashes, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return row * count + document for each row with a rarest hash, sorted, each once."""
        low, high = (np.searchsorted(self._keys, hashes, side) for side in ("left", "right"))
        hit = np.flatnonzero(high > low)
        sizes = (high - low)[hit]
        row = np.searchsorted(starts, np.repeat(hit, sizes), "right") - 1
        place = (
            np.arange(sizes.sum())
            - np.repeat(np.cumsum(sizes) - sizes, sizes)
            + np.repeat(low[hit], sizes)
        )
        return np.unique(row * self._count + self._owners[place])


def _held(wanted: Hashes, held: Hashes) -> float:
    """Return the share of `wanted` that is in `held`; 1 if nothing is wanted."""
    if not len(wanted):
        return 1.0
    return len(np.intersect1d(wanted, held, assume_unique=True)) / len(wanted)
