"""What documents look like in any language: shares of their
characters, and runs of four not met in the reference.

Many at once, because calls cost more than counting. All digits are alike in a run, and so is all
white space. Left out: words.
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
_PAD = " " * (RUN - 1)  # before each document, which so has as many runs as characters
_ZEROS = (
    0x30,
    0x660,
    0x6F0,
    0x966,
    0xFF10,
)  # of ASCII, Arabic, Persian, Devanagari, full-width digits
_U = np.uint64


@dataclass(frozen=True)
class Texts:
    """N documents, one behind the other, as code points
    (P,); document i has those of starts[i] to ends[i].
    """

    points: NDArray[np.uint32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[str]) -> Texts:
        """The documents, each with its padding before it."""
        cut = [_PAD + text[:LONGEST] for text in documents]
        ends = np.cumsum([len(text) for text in cut], dtype=np.int64)
        data = "".join(cut).encode("utf-32-le", "surrogatepass")
        return cls(np.frombuffer(data, "<u4"), np.concatenate([[0], ends])[:-1] + len(_PAD), ends)

    def share(self, which: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The share of each document's characters, (N,),
        for which `which`, (P,), is True; 0 of none.
        """
        sums = np.concatenate([[0], np.cumsum(which, dtype=np.int64)])
        return np.asarray(
            (sums[self.ends] - sums[self.starts]) / np.maximum(self.ends - self.starts, 1)
        )

    @cached_property
    def digits(self) -> NDArray[np.bool_]:
        """(P,)"""
        found = np.zeros(len(self.points), bool)
        for zero in _ZEROS:
            found |= (
                self.points - np.uint32(zero) < 10
            )  # below the zero it wraps around to far above
        return found

    @property
    def non_ascii(self) -> NDArray[np.bool_]:
        """(P,)"""
        return self.points >= 128

    @cached_property
    def runs(self) -> NDArray[np.int64]:
        """A hash of BITS bits of the run that ends at each
        point, (P,); no document's runs reach into another's.
        """
        points = np.where(
            self.digits, np.uint32(ord("0")), np.maximum(self.points, np.uint32(ord(" ")))
        ).astype(_U)
        found = np.zeros(len(points), _U)
        for back in range(RUN):
            found[back:] = found[back:] * _U(0x100000001B3) + points[: len(points) - back]
        found ^= found >> _U(29)
        found *= _U(0xBF58476D1CE4E5B9)
        return (found >> _U(64 - BITS)).astype(np.int64)


class Known:
    """The runs met so far: 16 MB, however many."""

    def __init__(self) -> None:
        self._met = np.zeros(1 << BITS, bool)

    def add(self, texts: Texts, some: NDArray[np.bool_]) -> None:
        """Meet the runs of those documents for which `some`, (N,), is True."""
        inside = np.zeros(len(texts.points) + 1, np.int8)
        inside[texts.starts[some]] += 1
        np.subtract.at(inside, texts.ends[some], 1)
        self._met[texts.runs[np.cumsum(inside[:-1], dtype=np.int8) > 0]] = True

    def novel(self, texts: Texts) -> NDArray[np.bool_]:
        """Whether the run that ends at each point was not met, (P,)."""
        return ~self._met[texts.runs]

    def longest_new(self, document: str) -> str:
        """The longest stretch of a document of which no run was met."""
        texts = Texts.of([document])
        new = np.concatenate([[False], self.novel(texts)[len(_PAD) :], [False]])
        starts, ends = (np.flatnonzero(np.diff(new.astype(np.int8)) == way) for way in (1, -1))
        if not len(starts):
            return ""
        longest = int(np.argmax(ends - starts))
        return document[max(int(starts[longest]) - len(_PAD), 0) : int(ends[longest])]
