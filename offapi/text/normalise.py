"""Normal forms of texts, numbers and dates, to compare them whatever their spelling.

Left out: readings that depend on a document, such as 02/04/2026.
"""

from __future__ import annotations

import unicodedata
from datetime import date
from functools import lru_cache
from typing import TypeGuard


def bare(text: str) -> str:
    """Return the lower-case letters and digits of `text`, in any script, composed (NFKC)."""
    if text.isascii():
        return text.lower().encode().translate(None, _DROPPED).decode()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in folded if _counts(char))


_DROPPED = bytes(code for code in range(128) if not chr(code).isalnum())


@lru_cache(maxsize=4096)
def _counts(char: str) -> bool:
    """Return whether `char` is a letter, a digit, or a mark that spells a vowel.

    Those marks have a combining class below 200; stray accents have a higher one.
    """
    kind = unicodedata.category(char)[0]
    return kind in "LN" or (kind == "M" and unicodedata.combining(char) < 200)


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
