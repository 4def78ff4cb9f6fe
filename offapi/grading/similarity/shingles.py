"""What two texts share: hashes of their runs of three words and of their numbers.

Texts are processed in bulk because numpy calls cost more than hashing. Case, punctuation and white
space do not count. Where a script does not separate words, each character is a word. The hashes are
the same in every process and on every machine. Left out: word forms and synonyms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Index = NDArray[np.int64]

WORDS = 3  # in a run
SKETCH = 48  # components of 16 bits: b-bit MinHash (Li and König, WWW 2010)
SAMPLE = 1000  # texts that `common` looks at
COMMON, FEW = 0.05, 20  # a run is common if it is in more than this share, and number, of them
LONGEST = 200_000  # characters of a text that count

_U = np.uint64
NOTHING: Hashes = np.empty(0, _U)
_DRAW = np.random.Generator(np.random.Philox(3))
_ODD = _DRAW.integers(0, 2**63, SKETCH, dtype=_U) * _U(2) + _U(1)
_BYTE = _DRAW.integers(0, 2**64, 256, dtype=_U)  # a random value for each byte
_BASE = 0x9E3779B97F4A7C15
_NO_SPACES = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)  # Thai, CJK ...
# first bytes in UTF-8 of those characters, and of others
_LEADS = {0xE0, 0xE1, *range(0xE3, 0xEA), 0xEF, 0xF0}
_SPACED = bytes(set(range(256)) - _LEADS)
_SPACES = bytes(i if i >= 128 or chr(i).isalnum() else 32 for i in range(256))


@dataclass(frozen=True)
class Prints:
    """N texts as hashes.

    Text i has `runs[run_starts[i] : run_starts[i + 1]]`, and numbers likewise.
    """

    whole: Hashes  # (N,), of all words in their order
    runs: Hashes
    run_starts: Index  # (N + 1,)
    numbers: Hashes  # words that hold a digit
    number_starts: Index  # (N + 1,)

    def runs_of(self, i: int) -> Hashes:
        """Return the runs of text `i`, sorted, each once. There is at least one."""
        return np.unique(self.runs[self.run_starts[i] : self.run_starts[i + 1]])

    def numbers_of(self, i: int) -> Hashes:
        """Return the numbers of text `i`, sorted, each once."""
        return np.unique(self.numbers[self.number_starts[i] : self.number_starts[i + 1]])

    @property
    def number_sums(self) -> Hashes:
        """One value for each text's numbers, whatever their order, (N,)."""
        return np.diff(_prefix(self.numbers)[self.number_starts])

    @property
    def sketches(self) -> NDArray[np.uint16]:
        """The smallest run under each of `SKETCH` orders, (N, SKETCH).

        The share of equal components estimates `shared`.
        """
        sketches = np.empty((len(self.whole), SKETCH), np.uint16)
        for i, odd in enumerate(_ODD):
            sketches[:, i] = np.minimum.reduceat(self.runs * odd, self.run_starts[:-1]) >> _U(40)
        return sketches


def pieces(texts: Sequence[str], characters: int = 1_000_000) -> Iterator[Sequence[str]]:
    """Yield `texts` in pieces of about `characters` characters, for `prints` to hold at once."""
    start = size = 0
    for i, text in enumerate(texts):
        size += min(len(text), LONGEST)
        if size >= characters:
            yield texts[start : i + 1]
            start, size = i + 1, 0
    if start < len(texts):
        yield texts[start:]


def prints(texts: Sequence[str], common: Hashes = NOTHING) -> Prints:
    """Return the hashes that `texts` are compared by; the runs in `common` do not count."""
    data = [_bare(text) for text in texts]
    ends = np.cumsum([len(part) for part in data], dtype=np.int64)
    words, digits, at = _words(np.frombuffer(b"".join(data), np.uint8))
    starts = np.concatenate([[0], np.searchsorted(at, ends)])  # of each text's words
    whole = _mixed(_between(words, starts[:-1], starts[1:]) + np.diff(starts).astype(_U))
    text = np.repeat(np.arange(len(texts)), np.diff(starts))
    inside = np.flatnonzero(text[: 1 - WORDS] == text[WORDS - 1 :])
    runs = _mixed(_between(words, inside, inside + WORDS))
    if len(common):
        rare = common[np.searchsorted(common[:-1], runs)] != runs  # `common` is sorted
        runs, inside = runs[rare], inside[rare]
    empty = np.flatnonzero(np.bincount(text[inside], minlength=len(texts)) == 0)
    run_text = np.concatenate([text[inside], empty])
    order = np.argsort(run_text, kind="stable")
    run_starts = np.searchsorted(run_text[order], np.arange(len(texts) + 1))
    number_starts = np.concatenate([[0], np.cumsum(digits)])[starts]
    return Prints(
        whole, np.concatenate([runs, whole[empty]])[order], run_starts, words[digits], number_starts
    )


def common(texts: Sequence[str]) -> Hashes:
    """Return runs that say nothing because many of a thousand `texts` share them.

    Instructions and forms are such runs.
    """
    sample = texts[:: -(-len(texts) // SAMPLE) or 1]
    sets: list[Hashes] = []
    for piece in pieces(sample):
        hashes = prints(piece)
        sets += [hashes.runs_of(i) for i in range(len(piece))]
    runs, counts = np.unique(np.concatenate([*sets, NOTHING]), return_counts=True)
    return runs[counts > max(COMMON * len(sample), FEW)]


def shared(a: Hashes, b: Hashes) -> float:
    """Return the share of what is in either set that is in both (Jaccard); 1 for two empty ones."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both) if len(a) + len(b) else 1.0


def _bare(text: str) -> bytes:
    """Return lower case with a space for every mark, and a space at the end."""
    low = text[:LONGEST].casefold()
    data = low.encode("utf-8", "surrogatepass")
    # several times faster than a search for the characters themselves
    if data.translate(None, _SPACED):
        data = _NO_SPACES.sub(r" \1 ", low).encode("utf-8", "surrogatepass")
    return data.translate(_SPACES) + b" "


def _words(data: NDArray[np.uint8]) -> tuple[Hashes, NDArray[np.bool_], Index]:
    """Return each word's hash (Karp and Rabin 1987), whether it holds a digit, and its start."""
    inside = np.concatenate([[False], data != ord(" ")])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    digits = _prefix((data >= ord("0")) & (data <= ord("9")))
    return _mixed(_between(_BYTE[data], starts, ends)), digits[ends] > digits[starts], starts


def _between(values: Hashes, starts: Index, ends: Index) -> Hashes:
    """Return a hash for each stretch of `values`.

    It depends on their order, but not on what comes before.
    """
    _POWERS.reach(len(values))
    total = _prefix(values * _POWERS.up[: len(values)])
    return (total[ends] - total[starts]) * _POWERS.down[starts]


class _Powers:
    """Powers of an odd base and of its inverse modulo 2**64, as many as were needed so far."""

    up = down = np.ones(1, _U)

    def reach(self, count: int) -> None:
        if count >= len(self.up):
            self.up, self.down = (
                _powers(base, 2 * count + 1) for base in (_BASE, pow(_BASE, -1, 2**64))
            )


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, _U)
    factors[0] = 1
    return factors.cumprod(dtype=_U)


_POWERS = _Powers()


def _prefix(values: NDArray[np.bool_] | Hashes) -> Hashes:
    """Return the sums of the first 0, 1, 2 ... values."""
    sums = np.zeros(len(values) + 1, _U)
    np.cumsum(values, out=sums[1:])
    return sums


def _mixed(x: Hashes) -> Hashes:
    """Return values spread evenly over 64 bits (SplitMix64's finaliser)."""
    x = (x ^ (x >> _U(30))) * _U(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U(27))) * _U(0x94D049BB133111EB)
    return x ^ (x >> _U(31))
