"""Checks: the answer's text is clean, of a sensible length, and does not repeat itself.

Strange characters are those that a decoding mistake or a confused model leaves behind: control
characters, U+FFFD, private use, directional marks, mojibake (Ã© for é), and words that mix Latin
with look-alike Cyrillic or Greek letters. A loop is what small models write until they are cut off.
Left out: the language of the answer, and sentences repeated in different places.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError
from offapi.text.display import plural

SHORTEST_LOOP = 40  # characters of a loop, all rounds together
LONGEST_ROUND = 100  # characters
# Every loop contains a piece that begins at a multiple of the stride and recurs.
_GRAM, _STRIDE = 8, 16
_CLEAN = Verdict(1.0, "no strange characters")
_NEVER = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff0-\uffff"
    "\ufdd0-\ufdef\ue000-\uf8ff\U000e0000-\U000e007f\U000f0000-\U0010ffff\ud800-\udfff]"
)
# What UTF-8 looks like in a Western code page.
_MOJIBAKE = re.compile(r"[\u00a0-\u00ff][\u0080-\u00bf\u0152-\u2122]+")
_WORD = re.compile(r"[^\W\d_]{4,}")  # shorter ones may be units: kΩ


def clean_characters(document: str, answer: Answer, context: Context) -> Verdict:
    """Return 1 when the answer has no strange character, escaped ones (\\u0000) included, else 0.

    A word of mixed letters is accepted where the document contains it too.
    """
    text = answer.text
    if text.isascii() and text.isprintable() and "\\u" not in text:
        return _CLEAN
    parts = [text]
    if "\\u" in text and answer.value is not None:
        parts += _texts(answer.value)
    for part in parts:
        match = _NEVER.search(part)
        if match:
            return Verdict(0.0, f"U+{ord(match[0]):04X} at character {match.start()}")
        strange = "" if part.isascii() else _strange_word(part, document)
        if strange:
            return Verdict(0.0, strange)
    return _CLEAN


def _strange_word(text: str, document: str) -> str:
    for match in _MOJIBAKE.finditer(text):
        if _decodes(match[0]):
            return f"{match[0]!r} is a wrongly decoded {_decodes(match[0])!r}"
    for match in _WORD.finditer(text):
        if not match[0].isascii() and _mixed(match[0]) and match[0] not in document:
            return f"{match[0]!r} mixes alphabets"
    return ""


def _decodes(text: str) -> str:
    """Return `text` after decoding its bytes as UTF-8, or "" where they are not UTF-8."""
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


def length(low: int = 1, high: int | None = None) -> Check:
    """Return a check: 1 when the answer has from `low` to `high` characters (inclusive), else 0."""
    if low < 0 or (high is not None and high < low):
        raise ConfigError(
            f"low must be at least 0 and at most high, got length({low}, {high}).",
            next_step="Give low and high in characters.",
        )
    right = Verdict(1.0, "the length is right")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        size = len(answer.text)
        if size < low:
            return Verdict(0.0, f"{plural(size, 'character')}, fewer than {low}")
        if high is not None and size > high:
            return Verdict(0.0, f"{plural(size, 'character')}, more than {high}")
        return right

    return check


def no_repetition(rounds: int = 8) -> Check:
    """Return a check: 0 when up to 100 characters repeat `rounds` times in a row, else 1.

    Ignored: loops of fewer than 40 characters in all, and what the document repeats as well.
    """
    if rounds < 4:
        raise ConfigError(
            f"rounds must be at least 4, got {rounds}.", next_step="Write no_repetition(rounds=8)."
        )
    fine = Verdict(1.0, "no loop")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        text = answer.text
        for anchor in range(0, len(text) - SHORTEST_LOOP + _STRIDE, _STRIDE):
            loop = _loop(text, anchor, rounds)
            if loop and text[loop[0] : loop[0] + SHORTEST_LOOP] not in document:
                first, period, size = loop
                return Verdict(
                    0.0,
                    f"{text[first : first + period]!r} repeats {size // period} times in a row",
                )
        return fine

    return check


def _loop(text: str, anchor: int, rounds: int) -> tuple[int, int, int] | None:
    """Return the loop around `anchor`, None where there is none.

    A loop is its start, the length of a round and the length of all rounds.
    """
    gram = text[anchor : anchor + _GRAM]
    again = text.find(gram, anchor + 1, anchor + LONGEST_ROUND + _GRAM)
    while again >= 0:
        period = again - anchor
        first, last = anchor, again
        while first > 0 and text[first - 1] == text[first - 1 + period]:
            first -= 1
        while last < len(text) and text[last] == text[last - period]:
            last += 1
        if last - first >= max(SHORTEST_LOOP, period * rounds):
            return first, period, last - first
        again = text.find(gram, again + 1, anchor + LONGEST_ROUND + _GRAM)
    return None
