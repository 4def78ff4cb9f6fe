"""What documents look like in any language: character shares and new runs of four.

A run is new if the reference does not contain it. Documents are processed in bulk because numpy
calls cost more than counting. In a run all digits count as one, and so does all white space. Left
out: words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

RUN = 4  # characters
LONGEST = 200_000  # characters of a document that count
BITS = 24
_PAD = " " * (RUN - 1)  # before each document, so that it has as many runs as characters
# the zero of ASCII, Arabic, Persian, Devanagari and full-width digits
_ZEROS = (0x30, 0x660, 0x6F0, 0x966, 0xFF10)
_U = np.uint64


@dataclass(frozen=True)
class Texts:
    """N documents, one behind the other, as code points (P,).

    Document i has those from starts[i] to ends[i].
    """

    points: NDArray[np.uint32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[str]) -> Texts:
        """Encode the documents, each with its padding before it."""
        cut = [_PAD + text[:LONGEST] for text in documents]
        ends = np.cumsum([len(text) for text in cut], dtype=np.int64)
        data = "".join(cut).encode("utf-32-le", "surrogatepass")
        return cls(np.frombuffer(data, "<u4"), np.concatenate([[0], ends])[:-1] + len(_PAD), ends)

    def share(self, which: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the share of each document's characters, (N,), where `which`, (P,), is True.

        0 for an empty document.
        """
        sums = np.concatenate([[0], np.cumsum(which, dtype=np.int64)])
        return np.asarray(
            (sums[self.ends] - sums[self.starts]) / np.maximum(self.ends - self.starts, 1)
        )

    @cached_property
    def digits(self) -> NDArray[np.bool_]:
        """Which characters are digits, (P,)."""
        digits = np.zeros(len(self.points), bool)
        for zero in _ZEROS:
            # below the zero the difference wraps around to a large number
            digits |= self.points - np.uint32(zero) < 10
        return digits

    @property
    def non_ascii(self) -> NDArray[np.bool_]:
        """Which characters are not ASCII, (P,)."""
        return self.points >= 128

    @cached_property
    def runs(self) -> NDArray[np.int64]:
        """A hash of BITS bits of the run that ends at each point, (P,).

        No document's runs reach into another's.
        """
        points = np.where(
            self.digits, np.uint32(ord("0")), np.maximum(self.points, np.uint32(ord(" ")))
        ).astype(_U)
        hashes = np.zeros(len(points), _U)
        for back in range(RUN):
            hashes[back:] = hashes[back:] * _U(0x100000001B3) + points[: len(points) - back]
        hashes ^= hashes >> _U(29)
        hashes *= _U(0xBF58476D1CE4E5B9)
        return (hashes >> _U(64 - BITS)).astype(np.int64)


class Known:
    """The runs seen so far, in a fixed 16 MB."""

    def __init__(self) -> None:
        self._seen = np.zeros(1 << BITS, bool)

    def add(self, texts: Texts, which: NDArray[np.bool_]) -> None:
        """Add the runs of the documents for which `which`, (N,), is True."""
        inside = np.zeros(len(texts.points) + 1, np.int8)
        inside[texts.starts[which]] += 1
        np.subtract.at(inside, texts.ends[which], 1)
        self._seen[texts.runs[np.cumsum(inside[:-1], dtype=np.int8) > 0]] = True

    def novel(self, texts: Texts) -> NDArray[np.bool_]:
        """Return whether the run that ends at each point is new, (P,)."""
        return ~self._seen[texts.runs]

    def longest_new(self, document: str) -> str:
        """Return the longest stretch of a document whose runs are all new."""
        texts = Texts.of([document])
        new = np.concatenate([[False], self.novel(texts)[len(_PAD) :], [False]])
        starts, ends = (np.flatnonzero(np.diff(new.astype(np.int8)) == way) for way in (1, -1))
        if not len(starts):
            return ""
        longest = int(np.argmax(ends - starts))
        return document[max(int(starts[longest]) - len(_PAD), 0) : int(ends[longest])]
