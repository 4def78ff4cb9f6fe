"""Near-duplicates: documents that share most of their runs of words and have the same numbers.

Two receipts of one shop that differ only in the date are two receipts, so the numbers must agree;
a scan with a misread number stays next to the good one. What many documents share, such as
instructions in a prompt, does not count. Candidates come from a sketch (locality-sensitive
hashing: Indyk and Motwani, STOC 1998) and are compared exactly, up to `COMPARED` documents.
Left out: translations, and documents that contain one another.

MinHash libraries were measured and not used. rensa 0.5 and datasketch 2.0 hash invoices and
receipts at 0.1 to 0.5 of this speed and join 0.997 of the receipt pairs found here. datasketch's
LSH index over these sketches joins all pairs, but at 0.66 of the speed and with 4.5 KiB a document
(4.3 GiB for a million), where a sketch takes 112 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.grading.similarity.shingles import Hashes, prints, shared

SIMILAR = 0.8  # share of the runs of three words in either document that are in both
NEIGHBOURS = 8  # rows of a band that a row is compared with, besides the first
# a pair whose sketches agree less (by 2.6 standard errors) is not compared
SURELY_LESS = SIMILAR - 0.15
COMPARED = 200_000  # documents; beyond that, pairs are not read again

Numbers = NDArray[np.int64]
Pairs = NDArray[np.int64]  # (P, 2), row indices
Compare = Callable[[Pairs], NDArray[np.bool_]]


@dataclass(frozen=True)
class Sketches:
    """What near-duplicates are found by: 112 bytes a document, one row each."""

    whole: NDArray[np.uint64]  # (N,)
    numbers: NDArray[np.uint64]  # (N,)
    sketch: NDArray[np.uint16]  # (N, SKETCH)


def compare(pairs: Pairs, text: Callable[[int], str], common: Hashes) -> NDArray[np.bool_]:
    """Return which pairs of documents with the same numbers are near-duplicates.

    `text` returns a document.
    """
    near = []
    for piece in _pieces(pairs, 64):
        hashes = prints([text(i) for i in piece.ravel().tolist()], common)
        near += [
            shared(hashes.runs_of(i), hashes.runs_of(i + 1)) >= SIMILAR
            for i in range(0, 2 * len(piece), 2)
        ]
    return np.array(near, bool)


def join(rows: Sketches, compare: Compare | None) -> Numbers:
    """Return for each document the index of the first one that it is a near-duplicate of.

    Directly or through others; its own index where there is none. `compare` says which pairs are
    near-duplicates; without it only exact copies are. Beyond `COMPARED` documents the sketches
    alone decide, with a standard error of 6 points.
    """
    _, first, inverse = np.unique(rows.whole, return_index=True, return_inverse=True)
    leader, different = np.arange(len(rows.whole)), np.empty(0, np.int64)
    for pairs in _candidates(rows, np.sort(first)) if compare else ():
        pairs = np.sort(pairs[leader[pairs[:, 0]] != leader[pairs[:, 1]]], axis=1)
        codes, once = np.unique(pairs[:, 0] * len(leader) + pairs[:, 1], return_index=True)
        pairs = pairs[once[~np.isin(codes, different, assume_unique=True)]]
        shares = _shares(rows, pairs)
        if compare is None or len(leader) > COMPARED:
            leader = _united(leader, pairs[shares >= SIMILAR])
            continue
        pairs = pairs[shares >= SURELY_LESS]
        near = compare(pairs)
        leader = _united(leader, pairs[near])
        different = np.union1d(different, pairs[~near] @ np.array([len(leader), 1]))
    leaders: Numbers = leader[first[inverse]]
    return leaders


def _united(leader: Numbers, pairs: Pairs) -> Numbers:
    """Return each one's leader, the smallest of its cluster, once `pairs` are joined too."""
    while len(pairs):
        ends = np.sort(leader[pairs], axis=1)
        pairs, ends = (each[ends[:, 0] != ends[:, 1]] for each in (pairs, ends))
        leader = leader.copy()
        np.minimum.at(leader, ends[:, 1], ends[:, 0])
        while not np.array_equal(leader, leader[leader]):
            leader = leader[leader]
    return leader


def _candidates(rows: Sketches, among: Numbers) -> Iterator[Pairs]:
    """Yield pairs of different documents with the same numbers that agree in a whole band."""
    _, which, counts = np.unique(rows.numbers[among], return_inverse=True, return_counts=True)
    among = among[counts[which] > 1]
    if len(among):
        # Of twelve bands of four components, 0.998 of the pairs at SIMILAR agree in one or more.
        bands = rows.sketch[among].view(np.uint64)
        for i in range(bands.shape[1]):
            # By the next band too, so that the most similar are neighbours.
            order = np.lexsort(
                (bands[:, (i + 1) % bands.shape[1]], rows.numbers[among], bands[:, i])
            )
            yield from (
                among[pairs]
                for pairs in _neighbours(order, bands[order, i], rows.numbers[among[order]])
            )


def _neighbours(order: Numbers, band: Hashes, numbers: Hashes) -> Iterator[Pairs]:
    """Yield rows of `order` that agree in band and numbers: with the first and the next few."""
    same = np.concatenate([[False], (np.diff(band) == 0) & (np.diff(numbers) == 0)])
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    yield np.column_stack([order, order[first]])[same]
    for distance in range(1, NEIGHBOURS + 1):
        near = first[distance:] == first[:-distance]
        if not near.any():
            return
        yield np.column_stack([order[distance:], order[:-distance]])[near]


def _shares(rows: Sketches, pairs: Pairs) -> NDArray[np.float64]:
    """Return the share of components in which each pair's sketches agree."""
    shares = [
        np.mean(rows.sketch[piece[:, 0]] == rows.sketch[piece[:, 1]], axis=1)
        for piece in _pieces(pairs, 100_000)
    ]
    return np.concatenate([*shares, np.empty(0)])


def _pieces(pairs: Pairs, size: int) -> list[Pairs]:
    return [pairs[at : at + size] for at in range(0, len(pairs), size)]
