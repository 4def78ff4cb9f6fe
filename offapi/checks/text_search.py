"""Whether a text stands in a document: its letters and digits, whatever is printed between them.

A few wrong letters are a scan's and are allowed in names, but every number in a text must be the
document's. Short texts and digits count only at the borders of words and numbers: AB does not stand
in CABLES, nor 14 in 1814. Left out: other words for the same thing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

from rapidfuzz import fuzz

from offapi.checks.numbers import NUMBER, as_digits, is_well_formed
from offapi.text.fold import fold, fold_document
from offapi.text.normalise import bare, bare_words

SIMILARITY = 85.0  # of 100: two wrong characters in a name of fifteen
_SHORT = 5  # characters; below this a near match is another word
_SPACED_SCRIPTS = "\u0e00"  # letters from here on are written without spaces, or with endings
_RUN = re.compile(r"\d+")
_NOT_DIGITS = re.compile(r"\D+")


@dataclass(frozen=True)
class _Letters:
    """A document's letters and digits, in words and in one string."""

    words: tuple[str, ...]
    text: str

    @cached_property
    def borders(self) -> frozenset[int]:
        """Where words begin and end in `text`."""
        return frozenset((0, *accumulate(map(len, self.words))))

    def cuts(self, at: int, short: bool) -> bool:
        """Return whether the place `at` is inside a number, or inside a word if `short`."""
        if not 0 < at < len(self.text):
            return False
        left, right = self.text[at - 1], self.text[at]
        if left.isdigit() or right.isdigit():
            return left.isdigit() and right.isdigit() and at not in self.borders
        return short and max(left, right) < _SPACED_SCRIPTS and at not in self.borders


def text_stands(name: str, document: str) -> bool:
    """Return whether `name` stands in `document`, but for a scan's wrong letters."""
    wanted = bare(fold(name))
    if not wanted:
        return name.strip() != "" and name.strip() in document
    if wanted.isdigit() and len(wanted) < _SHORT:
        return _number_stands(wanted, document)
    letters = _letters(document)
    if _found(wanted, letters):
        return True
    if len(wanted) < _SHORT or len(wanted) > len(letters.text):
        return False
    digits = _NOT_DIGITS.sub("", wanted)
    if _nearly(wanted, digits, letters):
        return True
    corrected = _corrected(document) if digits else letters
    return corrected != letters and (
        _found(wanted, corrected) or _nearly(wanted, digits, corrected)
    )


def exact_stands(name: str, document: str) -> bool:
    """Return whether `name` stands in `document` letter for letter, as a word of its own."""
    wanted, text = fold(name).strip(), fold_document(document)
    at = text.find(wanted)
    while at >= 0 and wanted:
        end = at + len(wanted)
        if not (_joined(text[at - 1 : at], wanted[0]) or _joined(wanted[-1], text[end : end + 1])):
            return True
        at = text.find(wanted, at + 1)
    return False


def _joined(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and max(left, right) < _SPACED_SCRIPTS


@lru_cache(maxsize=256)
def _letters(document: str) -> _Letters:
    return _letters_of(fold_document(document))


@lru_cache(maxsize=256)
def _corrected(document: str) -> _Letters:
    """Return the letters of `document` with a scan's letters in numbers read as digits."""
    return _letters_of(as_digits(fold_document(document)))


def _letters_of(folded: str) -> _Letters:
    words = bare_words(folded)
    return _Letters(tuple(words), "".join(words))


def _found(wanted: str, letters: _Letters) -> bool:
    short = len(wanted) < _SHORT
    at = letters.text.find(wanted)
    while at >= 0:
        if not letters.cuts(at, short) and not letters.cuts(at + len(wanted), short):
            return True
        at = letters.text.find(wanted, at + 1)
    return False


def _number_stands(wanted: str, document: str) -> bool:
    """Return whether a few digits are a whole number in `document`, or a part of a date or code."""
    for written in NUMBER.findall(fold_document(document)):
        pieces = [written] if is_well_formed(written) else []
        if wanted in (_NOT_DIGITS.sub("", piece) for piece in pieces or _RUN.findall(written)):
            return True
    return False


def _nearly(wanted: str, digits: str, letters: _Letters) -> bool:
    """Return whether `letters` has a part like `wanted` with the same `digits`.

    A text that is half digits is a code, in which every letter counts.
    """
    if 2 * len(digits) >= len(wanted):
        return False
    found = fuzz.partial_ratio_alignment(wanted, letters.text, score_cutoff=SIMILARITY)
    if found is None:
        return False
    start, end = found.dest_start, found.dest_end
    while start > 0 and letters.cuts(start, short=False):
        start -= 1
    while end < len(letters.text) and letters.cuts(end, short=False):
        end += 1
    return _same_digits(digits, letters, start, end)


def _same_digits(digits: str, letters: _Letters, start: int, end: int) -> bool:
    """Return whether the numbers between two places are `digits`.

    Digits within a word are a scan's letters (L1MITED), and those at the edges may be of the next
    line.
    """
    for run in _RUN.finditer(letters.text, start, end):
        if digits.startswith(run[0]):
            digits = digits.removeprefix(run[0])
        elif start < run.start() and run.end() < end and {*run.span()} <= letters.borders:
            return False
    return not digits
