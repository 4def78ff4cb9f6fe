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
# A number with one decimal mark, which is not a part of a date, a time or a version: 1.5, 1,234.50
_DECIMAL = re.compile(
    r"(?<![.,:/\d])(?<!\d-)(?:\d{1,3}(?:[,.' ]\d{3})+|\d+)([.,])(?:\d{1,2}|(?<=(?<!\d)0.)\d+)"
    r"(?!\d|[.,:/-]\d)"
)
_SIGNED = re.compile(r"[+#%‰<>≤≥±~]|^-\s*\d|[^\W\d_][*-]$")
_WITHOUT_SIGN = r"(?![\w+#*]|-(?!\w))"  # what may not follow C where it is not C++
_NOT_DIGITS = re.compile(r"\D+")


@dataclass(frozen=True)
class _Letters:
    """A document's letters and digits, in words and in one string."""

    words: tuple[str, ...]
    text: str
    folded: str  # the document that they are of

    @cached_property
    def borders(self) -> frozenset[int]:
        """Where words begin and end in `text`."""
        return frozenset((0, *accumulate(map(len, self.words))))

    @cached_property
    def decimals(self) -> frozenset[int]:
        """Where numbers in `text` have a decimal mark."""
        return _decimals(self.folded)

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
    folded = fold(name).strip()
    wanted = bare(folded)
    if not wanted:
        return name.strip() != "" and name.strip() in document
    if len(wanted) < _SHORT and (_SIGNED.search(folded) or _is_mark(wanted)):
        return _sign_stands(folded, document)
    decimals = frozenset() if wanted.isalpha() else _decimals(folded)
    if wanted.isdigit() and len(wanted) < _SHORT and not decimals:
        return _number_stands(wanted, document)
    letters = _letters(document)
    if _found(wanted, decimals, letters):
        return True
    if len(wanted) < _SHORT or len(wanted) > len(letters.text):
        return False
    digits = _NOT_DIGITS.sub("", wanted)
    if _nearly(wanted, digits, decimals, letters):
        return True
    corrected = _corrected(document) if digits else letters
    return corrected != letters and (
        _found(wanted, decimals, corrected) or _nearly(wanted, digits, decimals, corrected)
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
    return _Letters(tuple(words), "".join(words), folded)


def _decimals(folded: str) -> frozenset[int]:
    """Return where numbers have a decimal mark, counted in letters and digits."""
    places: list[int] = []
    at = length = 0
    for number in _DECIMAL.finditer(folded):
        length += len(bare(folded[at : number.start(1)]))
        at = number.start(1)
        places.append(length)
    return frozenset(places)


def _found(wanted: str, decimals: frozenset[int], letters: _Letters) -> bool:
    """Return whether `letters` has `wanted`, with decimal marks in the same places."""
    short = len(wanted) < _SHORT
    at = letters.text.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        whole = not letters.cuts(at, short) and not letters.cuts(end, short)
        if whole and _inside(letters, wanted, at, end) == decimals:
            return True
        at = letters.text.find(wanted, at + 1)
    return False


def _inside(letters: _Letters, wanted: str, at: int, end: int) -> set[int]:
    """Return the places of decimal marks between two places, from the first one on."""
    if wanted.isalpha():
        return set()
    return {place - at for place in letters.decimals if at < place < end}


def _is_mark(wanted: str) -> bool:
    return len(wanted) <= 2 and wanted.isascii() and wanted.isalpha()


def _sign_stands(folded: str, document: str) -> bool:
    """Return whether a short text stands with its sign, or without one: C is not C++, nor A A-."""
    spelled = r"\s*".join(map(re.escape, "".join(folded.split())))
    spelled = re.sub(r"(?<=\d)\\s\*(?:,|\\\.)", r"\\s*[.,]", spelled)
    before = r"(?<!\w)" if folded[0].isalnum() else ""
    after = _WITHOUT_SIGN if folded[-1].isalpha() else r"(?!\w)"
    return bool(re.search(before + spelled + after, fold_document(document), re.IGNORECASE))


def _number_stands(wanted: str, document: str) -> bool:
    """Return whether a few digits are a whole number in `document`, or a part of a date or code."""
    for written in NUMBER.findall(fold_document(document)):
        pieces = [written] if is_well_formed(written) else []
        if wanted in (_NOT_DIGITS.sub("", piece) for piece in pieces or _RUN.findall(written)):
            return True
    return False


def _nearly(wanted: str, digits: str, decimals: frozenset[int], letters: _Letters) -> bool:
    """Return whether `letters` has a part like `wanted` with the same `digits` and decimal marks.

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
    marks = _inside(letters, wanted, start, end)
    return len(marks) == len(decimals) and _same_digits(digits, letters, start, end)


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
