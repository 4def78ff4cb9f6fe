"""Every number that a text may mean, however it is written: the one grammar of all checks.

Digits with marks: 1,234.50 and 1.234,50 and 1 234,50 and 1'234.50 and 1,23,456.00 (Indian groups)
and .50, torn by a scan (65 .70) or with its letters for digits (l28.5O). Texts are folded first
(`offapi.text.fold`), so the digits of any script, narrow spaces and full width are read. Left out:
numbers in words, powers of ten, groups of four.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from offapi.text.fold import fold_document

# Digits joined by marks, and by spaces before groups of three. A first mark starts a fraction
# (.50), but not after a letter (No.50) or another mark.
NUMBER = re.compile(
    r"(?:(?<![\w.,'])[.,](?=\d))?\d+(?:[ \t]?[.,][ \t]?\d+|'\d+|[ \t]\d{3}(?![\d.,']?\d))*"
    r"(?:[ \t]\d{3}[.,][ \t]?\d+)?"
)
_TORN = re.compile(r"[ \t]([.,])[ \t]?(?=\d)")  # 65 .70
_SPACED = re.compile(r"[ \t]")
_DIGITS = re.compile(r"\d+")
_MOST_GROUPS = 5  # joined by spaces: 1 234 567 890 123
_WELL_FORMED = re.compile(
    r"(?P<grouped>\d{1,3}([.,'])\d{3}(?:\2\d{3})*|\d{1,2}(?:,\d\d)+,\d{3})"
    r"(?P<fraction>[.,]\d{1,2}|(?!\2)[.,]\d+)?"
    r"|\d*[.,]\d+|\d+"
)
_PIECE = re.compile(r"\d+(?:[.,]\d+)?")  # of what is no number as a whole: 04.03.2026
_MARKS = re.compile(r"[.,]")

_OCR_DIGITS = str.maketrans("OoQIl|SBZ", "000111582")
_NEAR_DIGIT = re.compile(r"(?<![^\W_])[OoQIl|SBZ]*\d[\dOoQIl|SBZ.,/-]*(?![^\W_])")


@lru_cache(maxsize=256)
def number_readings(text: str) -> frozenset[float]:
    """Return every number `text` may mean, without its sign."""
    numbers: set[float] = set()
    folded = fold_document(text)
    for version in {folded, as_digits(folded)}:
        for written in set(NUMBER.findall(version)):
            numbers |= readings_of(written)
    return frozenset(numbers)


def readings_of(written: str) -> set[float]:
    """Return what `written`, a match of NUMBER, may mean: with its spaces joining or parting."""
    if " " not in written and "\t" not in written:
        return _chunk_readings(written)
    parts = _SPACED.split(_TORN.sub(r"\1", written))
    numbers: set[float] = set()
    for first in range(len(parts)):
        for joined in _joined(parts[first : first + _MOST_GROUPS]):
            numbers |= _chunk_readings(joined)
    return numbers


def _joined(parts: list[str]) -> Iterator[str]:
    """Yield the first part, and the first with as many of the next as continue it."""
    text = parts[0]
    yield text.rstrip(".,")
    for part in parts[1:]:
        if text[-1:] in (".", ","):
            text += part
        elif text.replace("'", "").isdigit() and len(_first_digits(part)) == 3:
            text += "'" + part
        else:
            return
        yield text.rstrip(".,")


def _first_digits(part: str) -> str:
    found = _DIGITS.match(part)
    return found[0] if found else ""


def _chunk_readings(written: str) -> set[float]:
    if _WELL_FORMED.fullmatch(written):
        return amount_readings(written)
    numbers: set[float] = set()
    for piece in _PIECE.findall(written):
        numbers |= amount_readings(piece)
    return numbers


def is_well_formed(written: str) -> bool:
    """Return whether `written` is one number, unlike 04.03.2026."""
    return _WELL_FORMED.fullmatch(written) is not None


def is_amount(written: str) -> bool:
    """Return whether `written` is a sum of money by its marks: two decimals, or groups of three.

    A plain 12 may be anything.
    """
    found = _WELL_FORMED.fullmatch(written)
    return found is not None and (
        found["grouped"] is not None or (written[-3:-2] in (".", ",") and written[-2:].isdigit())
    )


def amount_readings(written: str) -> set[float]:
    """Return what `written`, digits with marks, may mean.

    The last mark starts a fraction, or separates thousands where three digits follow it; a mark
    that is there twice separates them.
    """
    joined = float("".join(_DIGITS.findall(written)))
    marks = _MARKS.findall(written)
    if not marks:
        return {joined}
    whole, _, last = written.rpartition(marks[-1])
    if len(last) == 3 and marks.count(marks[-1]) > 1:
        return {joined}
    fraction = float("".join(_DIGITS.findall(whole)) + "." + last)
    return {fraction, joined} if len(last) == 3 and whole else {fraction}


def is_negative(line: str, start: int, end: int) -> bool:
    """Return whether the number at these places has a minus on either side, or brackets: (5.00)."""
    before = line[:start].rstrip(_CURRENCY)[-1:]
    return (
        before == "-"
        or line[end : end + 1] == "-"
        or (before == "(" and line[end : end + 1] == ")")
    )


_CURRENCY = "rmus$€£¥₹"


def as_digits(text: str) -> str:
    """Return `text` with the letters that scans make of digits (O, l, S, B …) read as digits.

    Only letters inside numbers are replaced.
    """
    return _NEAR_DIGIT.sub(lambda match: match[0].translate(_OCR_DIGITS), text)
