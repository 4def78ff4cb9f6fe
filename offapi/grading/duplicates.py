"""Near-duplicates: documents that share most of their runs of words and have the same numbers.

Two receipts of one shop may differ in a date alone and are not the same receipt, so the numbers
must agree; a scan that misread one stays beside the good scan. What many documents share, as
instructions in a prompt, does not count. Candidates come from a sketch
(locality-sensitive hashing: Indyk and Motwani, STOC 1998) and are then compared exactly. Left
out: translations, and documents that contain one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.grading.shingles import Hashes, common, pieces, prints, shared

SIMILAR = 0.8  # share of the runs of three words in either document that are in both
BAND = 4  # components; in 12 bands, 0.998 of the pairs at SIMILAR agree in one whole band
NEIGHBOURS = 8  # of a row in a band that it is compared with, besides the first
SURELY_LESS = SIMILAR - 0.2  # of the components: 3.5 standard errors, and the pair is not compared

Numbers = NDArray[np.int64]
Pairs = NDArray[np.int64]  # (P, 2), row indices
Compare = Callable[[Pairs], NDArray[np.bool_]]


@dataclass(frozen=True)
class Sketches:
    """What near-duplicates are found by, a row a document: 112 bytes each."""

    whole: NDArray[np.uint64]  # (N,)
    numbers: NDArray[np.uint64]  # (N,)
    sketch: NDArray[np.uint16]  # (N, SKETCH)

    @classmethod
    def of(cls, documents: Sequence[str], common: Hashes) -> Sketches:
        """The sketches of `documents`, runs in `common` aside."""
        found = [prints(some, common) for some in pieces(documents)]
        parts = [(each.whole, each.number_sums, each.sketches) for each in found]
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def clusters(documents: Sequence[str]) -> Numbers:
    """For each document the index of the first one that it is a near-duplicate of, directly or through others.

    That is its own index where it is the first, or the only one.
    """
    if not documents:
        return np.empty(0, np.int64)
    boring = common(documents)
    rows = Sketches.of(documents, boring)
    return join(rows, lambda pairs: compare(pairs, documents.__getitem__, boring))


def compare(pairs: Pairs, text: Callable[[int], str], common: Hashes) -> NDArray[np.bool_]:
    """Which pairs of documents with the same numbers are near-duplicates; `text` gives a document."""
    near = []
    for some in _pieces(pairs, 64):
        found = prints([text(i) for i in some.ravel().tolist()], common)
        near += [shared(found.runs_of(i), found.runs_of(i + 1)) >= SIMILAR for i in range(0, 2 * len(some), 2)]
    return np.array(near, bool)


def join(rows: Sketches, compare: Compare | None) -> Numbers:
    """As `clusters`, from sketches; `compare` says which pairs are near-duplicates, without it only exact ones are."""
    _, first, inverse = np.unique(rows.whole, return_index=True, return_inverse=True)
    pairs = _candidates(rows, np.sort(first)) if compare else np.empty((0, 2), np.int64)
    pairs = pairs[compare(pairs)] if compare and len(pairs) else pairs
    leader = np.arange(len(rows.whole))
    for a, b in pairs.tolist():  # union-find: the smallest index leads
        low, high = sorted((_lead(leader, a), _lead(leader, b)))
        leader[high] = low
    for i in np.unique(pairs).tolist():
        leader[i] = _lead(leader, i)
    found: Numbers = leader[first[inverse]]
    return found


def _lead(leader: Numbers, i: int) -> int:
    while leader[i] != i:
        leader[i] = leader[leader[i]]
        i = int(leader[i])
    return i


def _candidates(rows: Sketches, among: Numbers) -> Pairs:
    """Pairs of different documents with the same numbers that agree in a whole band, and in enough components."""
    _, which, counts = np.unique(rows.numbers[among], return_inverse=True, return_counts=True)
    among = among[counts[which] > 1]
    found = [np.empty((0, 2), np.int64)]
    if len(among):
        bands = rows.sketch[among].view(np.uint64)
        for i in range(bands.shape[1]):
            # By the next band too, so that those most alike stand side by side.
            order = np.lexsort((bands[:, (i + 1) % bands.shape[1]], rows.numbers[among], bands[:, i]))
            found += [
                _alike(rows, among[pairs]) for pairs in _neighbours(order, bands[order, i], rows.numbers[among[order]])
            ]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _neighbours(order: Numbers, band: Hashes, numbers: Hashes) -> Iterator[Pairs]:
    """Rows of `order` that agree in band and numbers: each with the next few, and with the first."""
    same = np.concatenate([[False], (np.diff(band) == 0) & (np.diff(numbers) == 0)])
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    yield np.column_stack([order, order[first]])[same]
    for distance in range(1, NEIGHBOURS + 1):
        near = first[distance:] == first[:-distance]
        if not near.any():
            return
        yield np.column_stack([order[distance:], order[:-distance]])[near]


def _alike(rows: Sketches, pairs: Pairs) -> Pairs:
    """Those whose sketches do not rule out that they are near-duplicates."""
    shares = [np.mean(rows.sketch[some[:, 0]] == rows.sketch[some[:, 1]], axis=1) for some in _pieces(pairs, 100_000)]
    return pairs[np.concatenate([*shares, np.empty(0)]) >= SURELY_LESS]


def _pieces(pairs: Pairs, size: int) -> list[Pairs]:
    return [pairs[at : at + size] for at in range(0, len(pairs), size)]
