"""Where a document prints a value: character spans, by the kind of the field.

What `in_source` answers with yes or no, with the place. The readings are those of `numbers` and
`dates`; texts are found as printed, then by letters and digits, then with a scan's wrong letters.
Left out: which of several places is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import lru_cache

from rapidfuzz import fuzz

from offapi.checks.dates import date_readings
from offapi.checks.gold import HALF_A_CENT, precision
from offapi.checks.kinds import KindName
from offapi.checks.numbers import NUMBER, as_digits, is_negative, readings_of
from offapi.checks.text_search import SIMILARITY
from offapi.text.fold import fold, fold_document
from offapi.text.normalise import bare, is_number, iso_date

Span = tuple[int, int]  # the first character and the one after the last
_SHORT = 5  # letters; below this a near match is another word
_TOKEN = re.compile(r"\S+|\s+")
_RUN = re.compile(r"[^\W\d_]+|\d+|[\W_]")  # letters, digits, or one mark
_LONGEST_LINE = 400  # characters; longer lines are read in pieces


def where(kind: KindName, value: object, document: str) -> tuple[Span, ...]:
    """Return where `document` prints `value`, in its order; () where it does not.

    A list or an object has the places of its first leaf that is printed nowhere else: none.
    """
    if value is None or isinstance(value, bool | list | dict):
        return ()
    if is_number(value):
        return number_places(float(value), document)
    day = iso_date(value) if kind == "date" and isinstance(value, str) else None
    if day is not None:
        return date_places(day, document)
    return text_places(value, document) if isinstance(value, str) else ()


def number_places(value: float, document: str) -> tuple[Span, ...]:
    """Return where a number of `document` may mean `value`, ignoring its sign."""
    wanted = abs(value)
    return tuple(span for span, readings, _ in printed_numbers(document) if _near(wanted, readings))


def _near(wanted: float, readings: frozenset[float]) -> bool:
    return any(
        abs(wanted - number) <= HALF_A_CENT
        and abs(wanted - number) < min(precision(wanted), precision(number))
        for number in readings
    )


@lru_cache(maxsize=64)
def printed_numbers(document: str) -> tuple[tuple[Span, frozenset[float], bool], ...]:
    """Return every printed number's place, what it may mean, and whether it has a minus."""
    folded, back = fold_document(document), _places(document)
    found: dict[Span, tuple[frozenset[float], bool]] = {}
    for version in (folded, as_digits(folded)):
        for match in NUMBER.finditer(version):
            start, end = match.span()
            line = version.rfind("\n", 0, start) + 1
            minus = is_negative(version[line : end + 1].lower(), start - line, end - line)
            span = (back[start], back[end - 1] + 1 if end else 0)
            earlier = found.get(span, (frozenset(), False))
            readings = earlier[0] | readings_of(match[0])
            found[span] = (frozenset(readings), minus or earlier[1])
    return tuple((span, *found[span]) for span in sorted(found))


def date_places(day: date, document: str) -> tuple[Span, ...]:
    """Return the shortest runs of a line's letters, digits and marks that may name `day`."""
    spans: list[Span] = []
    for start, line in _lines(document):
        if any(char.isdigit() or ord(char) > 0x2FFF for char in line):
            spans += [(start + a, start + b) for a, b in _narrowed(day, line)]
    if not spans and day in date_readings(document):  # torn over two lines
        spans = list(_narrowed(day, document))
    return tuple(sorted(spans))


def _lines(document: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in document.split("\n"):
        for cut in range(0, max(len(line), 1), _LONGEST_LINE):
            yield at + cut, line[cut : cut + _LONGEST_LINE]
        at += len(line) + 1


def _narrowed(day: date, text: str) -> Iterator[Span]:
    """Yield the places in `text` that name `day`, from the last to the first."""
    read = date_readings.__wrapped__  # pieces are not worth their place in the cache
    end = len(text)
    while day in read(text[:end]):
        borders = [match.start() for match in _RUN.finditer(text, 0, end)] + [end]
        low, high = 0, len(borders) - 1
        for i, border in enumerate(borders):
            low = i if day in read(text[border:end]) else low
        while high - 1 > low and day in read(text[borders[low] : borders[high - 1]]):
            high -= 1
        yield borders[low], borders[high]
        end = borders[low]


def text_places(name: str, document: str) -> tuple[Span, ...]:
    """Return where `document` prints `name`: as it is, else by its letters, else nearly."""
    words = name.split()
    if not words:
        return ()
    spelled = r"\s+".join(map(re.escape, words))
    exact = [
        found.span()
        for found in re.finditer(spelled, document)
        if not _cuts(document, found.start()) and not _cuts(document, found.end())
    ]
    return tuple(exact) or _by_letters(name, document)


def _cuts(text: str, at: int) -> bool:
    """Return whether the place is inside a word or number."""
    left, right = text[at - 1 : at] if at else "", text[at : at + 1]
    return left.isalnum() and right.isalnum() and max(left, right) < "\u0e00"


def _by_letters(name: str, document: str) -> tuple[Span, ...]:
    letters, back = _letters(document)
    wanted = bare(fold(name))
    spans: list[Span] = []
    at = letters.find(wanted) if wanted else -1
    while at >= 0:
        span = (back[at], back[at + len(wanted) - 1] + 1)
        if not (_cuts(document, span[0]) or _cuts(document, span[1])):
            spans.append(span)
        at = letters.find(wanted, at + 1)
    if spans or len(wanted) < _SHORT or len(wanted) > len(letters):
        return tuple(spans)
    near = fuzz.partial_ratio_alignment(wanted, letters, score_cutoff=SIMILARITY)
    if near is None or near.dest_end <= near.dest_start:
        return ()
    return ((back[near.dest_start], back[near.dest_end - 1] + 1),)


@lru_cache(maxsize=64)
def _letters(document: str) -> tuple[str, tuple[int, ...]]:
    """Return the document's bare letters and digits, and the place of each."""
    letters: list[str] = []
    back: list[int] = []
    for at, char in enumerate(document):
        found = bare(char)
        letters.append(found)
        back += [at] * len(found)
    return "".join(letters), tuple(back)


@lru_cache(maxsize=64)
def _places(document: str) -> tuple[int, ...]:
    """Return the place in `document` of each character of its folded form."""
    folded = fold_document(document)
    if folded == document:
        return tuple(range(len(document)))
    back: list[int] = []
    for token in _TOKEN.finditer(document):
        back += _places_of(token[0], token.start())
    # Folding that joins words is rare; then a place is only near.
    back += [len(document) - 1] * (len(folded) - len(back))
    return tuple(back[: len(folded)])


def _places_of(token: str, start: int) -> list[int]:
    folded = fold(token)
    if len(folded) == len(token):
        return list(range(start, start + len(token)))
    single = [fold(char) for char in token]
    if "".join(single) == folded:
        return [start + i for i, piece in enumerate(single) for _ in piece]
    last = len(token) - 1
    return [start + min(i, last) for i in range(len(folded))]
