"""One form of a text before anything is read in it: the characters that look alike become one.

Compatibility forms (NFKC: full width, ligatures, narrow and no-break spaces), digits of any
script, dashes, quotes, zero-width characters and HTML's spaces. What would change a number is kept
apart: a raised digit after a digit (12.50¹) and a fraction after a whole number (1½). Left out:
case, and letters that look alike in two scripts.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

_ENTITY = re.compile(
    r"&(?:nbsp|thinsp|ensp|emsp|amp|shy|zwnj|zwj|minus|#\d{1,6}|#x[\da-fA-F]{1,5});"
)
_UNSPOKEN = re.compile(
    "[©®™℠\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"
)
_RAISED = re.compile(r"(?<=\d)[⁰¹²³⁴-⁹⁺⁻]+")
_FRACTION = re.compile(r"(?<=\d)[¼-¾⅐-⅞]")
_DASH = re.compile("[\u2010-\u2015\u2212\ufe58]")
_QUOTE = re.compile("[\u2018-\u201b\u02bc\u2032\u00b4]")
_POINT = re.compile("(?<=\\d)[·‧∙⋅・\u066b](?=\\d)")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_DIGIT = re.compile(r"(?![0-9])\d")
_SPECIAL = re.compile(
    "|".join((_UNSPOKEN.pattern, _DASH.pattern, _QUOTE.pattern, r"[·‧∙⋅・\u066b\u066c\u2044]|\d"))
)


@lru_cache(maxsize=1024)
def _changes(characters: str) -> bool:
    """Return whether any of `characters` is folded; most documents hold few, and the same ones."""
    return any(
        _SPECIAL.match(char)
        or unicodedata.combining(char)
        or unicodedata.normalize("NFKC", char) != char
        for char in characters
    )


@lru_cache(maxsize=256)
def fold_document(text: str) -> str:
    """Return `fold(text)` of a document, which several checks read."""
    return fold(text)


def fold(text: str) -> str:
    """Return `text` in the form that dates, numbers and names are read in; ASCII stays as it is."""
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if text.isascii() or not _changes("".join(sorted(set(_NOT_ASCII.findall(text))))):
        return text
    text = _RAISED.sub(r"^\g<0>", _FRACTION.sub(r" \g<0>", _UNSPOKEN.sub("", text)))
    text = unicodedata.normalize("NFKC", text)
    text = _QUOTE.sub("'", _DASH.sub("-", text)).replace("\u2044", "/").replace("\u066c", ",")
    return _DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), _POINT.sub(".", text))
