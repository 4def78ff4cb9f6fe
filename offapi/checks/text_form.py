"""Checks: the answer's text is clean, of a sensible length, and does not repeat itself.

Strange characters are those that a decoding mistake or a confused model leaves behind: control
characters, U+FFFD, private use, directional marks, mojibake (Ã© for é), and words that mix Latin
with look-alike Cyrillic or Greek letters. A loop is what small models write until they are cut off.
Left out: which language the answer is in, and sentences that come again elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError

SHORTEST_LOOP = 40  # characters of a loop, all its rounds together
LONGEST_ROUND = 100  # characters
# Every loop holds a piece that begins at a multiple of the stride and comes again.
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
    """1 when no strange character is in the answer, escaped ones (\\u0000) included, else 0.

    A word of mixed letters that the document has as well is the document's own.
    """
    text = answer.text
    if text.isascii() and text.isprintable() and "\\u" not in text:
        return _CLEAN
    parts = [text]
    if "\\u" in text and answer.value is not None:
        parts += _texts(answer.value)
    for part in parts:
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


def length(low: int = 1, high: int | None = None) -> Check:
    """A check: 1 when the answer's text has from
    `low` to `high` characters, both included, else 0.
    """
    if low < 0 or (high is not None and high < low):
        raise ConfigError(
            f"length has the limits {low} and {high}.", next_step="Give low and high in characters."
        )
    right = Verdict(1.0, "the length is right")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        size = len(answer.text)
        if size < low:
            return Verdict(0.0, f"{size} characters, fewer than {low}")
        return (
            right
            if high is None or size <= high
            else Verdict(0.0, f"{size} characters, more than {high}")
        )

    return check


def no_repetition(rounds: int = 8) -> Check:
    """A check: 0 when a stretch of up to 100 characters follows
    itself until it stands there `rounds` times, else 1.

    Passed over: less than 40 characters in all, and what the document repeats as well.
    """
    if rounds < 4:
        raise ConfigError(f"no_repetition has rounds = {rounds}.", next_step="Give 4 or more.")
    fine = Verdict(1.0, "no loop")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        text = answer.text
        for anchor in range(0, len(text) - SHORTEST_LOOP + _STRIDE, _STRIDE):
            found = _loop(text, anchor, rounds)
            if found and text[found[0] : found[0] + SHORTEST_LOOP] not in document:
                first, period, size = found
                return Verdict(
                    0.0,
                    f"{text[first : first + period]!r} stands there {size // period} times on end",
                )
        return fine

    return check


def _loop(text: str, anchor: int, rounds: int) -> tuple[int, int, int] | None:
    """Where the loop around `anchor` begins, how long a
    round is, and how long it is; None where there is none.
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
