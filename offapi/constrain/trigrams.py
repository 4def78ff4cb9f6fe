"""Which of many names share most with a text: by runs of three bytes of their letters.

Exact edit distances to a million names would take minutes a document; this leaves a few dozen to
compare. Left out: the comparison itself (`register`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_KEPT = 64  # names that are worth comparing
_CHANCE = 0.4  # the share of a name's trigrams that an unrelated document has


@dataclass(frozen=True)
class Trigrams:
    """For each run of three bytes, the names that have it."""

    kinds: NDArray[np.int32]  # ascending, (K,)
    starts: NDArray[np.int64]  # where each one's names begin in `postings`, (K + 1,)
    postings: NDArray[np.int32]
    sizes: NDArray[np.int32]  # trigrams of each name, (N,)

    @classmethod
    def of(cls, letters: Sequence[str]) -> Trigrams:
        """Index texts of letters and digits, in their order."""
        joined = np.frombuffer(("\n".join(letters) + "\n").encode(), np.uint8)
        kinds = _kinds(joined)
        ends = joined == _BREAK
        names = np.cumsum(ends, dtype=np.int32)[:-2] if len(joined) > 2 else np.zeros(0, np.int32)
        inside = ~(ends[:-2] | ends[1:-1] | ends[2:]) if len(joined) > 2 else np.zeros(0, bool)
        kinds, names = kinds[inside], names[inside]
        order = np.argsort(kinds, kind="stable")
        kinds, postings = kinds[order], names[order]
        found, starts = np.unique(kinds, return_index=True)
        sizes = np.bincount(names, minlength=len(letters)).astype(np.int32)
        return cls(found, np.append(starts, len(kinds)), postings, sizes)

    def likeliest(self, text: str) -> list[int]:
        """Return the names of which `text` has more trigrams than by chance, the best first."""
        wanted = np.unique(_kinds(np.frombuffer(text.encode(), np.uint8)))
        at = np.searchsorted(self.kinds, wanted)
        at = at[at < len(self.kinds)]
        at = at[np.isin(self.kinds[at], wanted)]
        if not len(at):
            return list(range(min(len(self.sizes), _KEPT)))
        shared = [self.postings[self.starts[i] : self.starts[i + 1]] for i in np.unique(at)]
        counts = np.bincount(np.concatenate(shared), minlength=len(self.sizes))
        beyond = counts - _CHANCE * self.sizes
        kept = min(_KEPT, len(beyond))
        best = np.argpartition(-beyond, kept - 1)[:kept]
        return [int(i) for i in best[np.argsort(-beyond[best], kind="stable")]]


_BREAK = 10


def _kinds(text: NDArray[np.uint8]) -> NDArray[np.int32]:
    if len(text) < 3:
        return np.zeros(0, np.int32)
    wide = text.astype(np.int32)
    return (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]
