"""Normal forms of texts, numbers and dates, to compare them whatever their spelling.

Left out: readings that depend on a document, such as 02/04/2026.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache
from typing import TypeGuard

from offapi.text.fold import fold


def bare(text: str) -> str:
    """Return the lower-case letters and digits of `text`, in any script, composed (NFKC)."""
    if text.isascii():
        return text.lower().encode().translate(None, _DROPPED).decode()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in folded if _counts(char))


def bare_words(text: str) -> list[str]:
    """Return the words that `bare` would join."""
    if text.isascii():
        return text.lower().encode().translate(_SPACED).decode().split()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(map(_in_word, folded)).split()


@lru_cache(maxsize=4096)
def _in_word(char: str) -> str:
    """Return `char` where it counts, nothing for a stray accent, else a space."""
    if _counts(char):
        return char
    return "" if unicodedata.category(char)[0] == "M" else " "


_SPACED = bytes(code if chr(code).isalnum() and code < 128 else 32 for code in range(256))
_DROPPED = bytes(code for code in range(128) if not chr(code).isalnum())


@lru_cache(maxsize=4096)
def _counts(char: str) -> bool:
    """Return whether `char` is a letter, a digit, or a mark that spells a vowel.

    Those marks have a combining class below 200; stray accents have a higher one.
    """
    kind = unicodedata.category(char)[0]
    return kind in "LN" or (kind == "M" and unicodedata.combining(char) < 200)


# Marks that carry a value: between digits, as a sign before digits, at the end of a short mark such
# as A- or C#, after a number (5-), and the space of a mixed number (1 1/2).
_MARK = re.compile(
    r"(?<=\d)\s*[.,:/'_*-]\s*(?=\d)"
    r"|(?<![^\s(\[$€£¥₹<>=~])[-.,](?=[^\w\s]?\d)|^-\s+(?=\d)"
    r"|(?<=\d)-(?!\w)|(?<![^\W_])(?:[^\W_]{1,3}-+|[^\W_]{1,2}[*#]+)(?![^\W_])"
    r"|(?<=\d)\s+(?=\d+/\d)"
)
_IN_BRACKETS = re.compile(
    r"([^\w\s]?)\(\s*([^\w\s]?\s*\d[\d.,' ]*)\)([^\w\s]?)"
)  # -5, as accounts write it
_RULE = re.compile(r"([=<>~^+])\1{2,}")  # drawn lines
_NO_SIGN = frozenset("`|´¨¯¸")


def text_key(text: str) -> str:
    """Return what two texts that mean the same have in common: letters, digits and signs.

    Case, spaces and punctuation are dropped. Kept are symbols ($, +, %, °), marks that stand
    between or before digits, and the sign that ends A-, C# or A*. An address with @ or :// is kept
    whole.
    """
    folded = fold(text).casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKC", folded)
    if bracketed := _IN_BRACKETS.fullmatch(folded.strip()):
        folded = "-" + "".join(bracketed.groups())
    if "@" in folded or "://" in folded:
        return "".join(map(_word_key, folded.split()))
    return _key(folded)


def _word_key(word: str) -> str:
    return word.strip(".,;:<>()[]") if "@" in word or "://" in word else _key(word)


def _key(folded: str) -> str:
    kept: list[str] = []
    at = 0
    folded = _RULE.sub("", folded)
    for mark in _MARK.finditer(folded):
        kept += [char for char in folded[at : mark.start()] if _means(char)]
        kept.append(mark[0].strip() or " ")
        at = mark.end()
    kept += [char for char in folded[at:] if _means(char)]
    return "".join(kept).replace("×", "x")


@lru_cache(maxsize=4096)
def _means(char: str) -> bool:
    """Return whether `char` counts in a text: a letter, a digit, or a symbol."""
    if char in "%‰":
        return True
    return _counts(char) or (unicodedata.category(char)[0] == "S" and char not in _NO_SIGN)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether `value` is a JSON number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def iso_date(text: str) -> date | None:
    """Return the date that `text` spells as YYYY-MM-DD, or None."""
    if len(text) != 10 or not text[4] == text[7] == "-" or not text.isascii():
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
