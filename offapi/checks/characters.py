"""Check: the answer holds no characters that a decoding mistake or a confused model leaves behind.

Control characters, U+FFFD, private use, directional marks, mojibake (Ã© for é), and words that
mix Latin with look-alike Cyrillic or Greek letters. Left out: which language the answer is in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from offapi.checks.verdict import Answer, Context, Verdict

_CLEAN = Verdict(1.0, "no strange characters")
_NEVER = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff0-\uffff"
    "\ufdd0-\ufdef\ue000-\uf8ff\U000e0000-\U000e007f\U000f0000-\U0010ffff\ud800-\udfff]"
)
_MOJIBAKE = re.compile(
    r"[\u00a0-\u00ff][\u0080-\u00bf\u0152-\u2122]+"
)  # what UTF-8 looks like in a Western code page
_WORD = re.compile(r"[^\W\d_]{4,}")  # shorter ones may be units: kΩ


def clean_characters(document: str, answer: Answer, context: Context) -> Verdict:
    """1 when no strange character is in the answer, escaped ones (\\u0000) included, else 0.

    A word of mixed letters that the document has as well is the document's own.
    """
    text = answer.text
    if text.isascii() and text.isprintable() and "\\u" not in text:
        return _CLEAN
    for part in (
        text,
        *(_texts(answer.value) if "\\u" in text and answer.value is not None else ()),
    ):
        found = _NEVER.search(part)
        if found:
            return Verdict(0.0, f"U+{ord(found[0]):04X} at character {found.start()}")
        strange = "" if part.isascii() else _strange_word(part, document)
        if strange:
            return Verdict(0.0, strange)
    return _CLEAN


def _strange_word(text: str, document: str) -> str:
    for found in _MOJIBAKE.finditer(text):
        if _decodes(found[0]):
            return f"{found[0]!r} is {_decodes(found[0])!r}, decoded wrongly"
    for found in _WORD.finditer(text):
        if not found[0].isascii() and _mixed(found[0]) and found[0] not in document:
            return f"{found[0]!r} mixes alphabets"
    return ""


def _decodes(text: str) -> str:
    """What `text` becomes when the bytes it stood for are
    read as the UTF-8 they are, "" when they are none.
    """
    for page in ("cp1252", "latin-1"):
        try:
            return text.encode(page).decode("utf-8")
        except UnicodeError:
            continue
    return ""


def _mixed(word: str) -> bool:
    scripts = {unicodedata.name(char, "").partition(" ")[0] for char in word}
    return "LATIN" in scripts and bool(scripts & {"CYRILLIC", "GREEK"})


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from (name, *_texts(part))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
