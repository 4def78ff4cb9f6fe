"""A set of 64-bit hashes that can be stored: which rows were counted already."""

from __future__ import annotations

import numpy as np

from offapi.grading.similarity.shingles import NOTHING, Hashes

FOLD = 50_000  # new hashes before they are merged into the sorted array


class Ids:
    """A set of hashes, eight bytes each."""

    def __init__(self, known: Hashes = NOTHING) -> None:
        self._known, self._new = known, set[int]()

    def __contains__(self, digest: int | None) -> bool:
        if digest is None:
            return False
        if digest in self._new:
            return True
        at = int(np.searchsorted(self._known, np.uint64(digest)))
        return at < len(self._known) and int(self._known[at]) == digest

    def add(self, digest: int) -> None:
        """Add one hash."""
        self._new.add(digest)
        if len(self._new) >= FOLD:
            self._known, self._new = self.sorted(), set()

    def sorted(self) -> Hashes:
        """Return all hashes, sorted, each once."""
        return np.union1d(self._known, np.fromiter(self._new, np.uint64, len(self._new)))
