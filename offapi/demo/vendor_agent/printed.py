"""How a receipt prints a company's name: shortened, abbreviated, in capitals, misread.

Left out: names that no search could find.
"""

from __future__ import annotations

from collections.abc import Callable

from offapi.demo.draw import RandomStream

_MISREAD = {"o": "0", "l": "1", "i": "l", "s": "5", "b": "6", "e": "c", "a": "o", "m": "rn"}
_FORMS = ("Ltd", "Limited", "PLC", "GmbH", "Inc", "LLC", "Sdn Bhd", "Holdings", "Group")
_KEPT = 3  # letters of an abbreviated word


def print_name(name: str, draw: RandomStream) -> str:
    """Return `name` as it is printed: one or two changes, and often capitals."""
    changes: tuple[Callable[[str, RandomStream], str], ...] = (_shorten, _abbreviate, _misread)
    printed = name
    for change in draw.sample(changes, draw.between(1, 2)):
        printed = change(printed, draw)
    return printed.upper() if draw.chance(0.5) else printed


def _shorten(name: str, draw: RandomStream) -> str:
    """Leave out the legal form, and mostly the place in brackets."""
    words = [word for word in name.split() if word not in _FORMS and word not in ("Sdn", "Bhd")]
    if draw.chance(0.7):
        words = [word for word in words if not word.startswith("(")]
    return " ".join(words) or name


def _abbreviate(name: str, draw: RandomStream) -> str:
    """Cut one of the words after the first, as a till with few columns does."""
    words = name.split()
    long = [i for i, word in enumerate(words) if i and len(word) > _KEPT + 2 and word.isalpha()]
    if not long:
        return _misread(name, draw)
    at = draw.pick(long)
    words[at] = words[at][: draw.between(_KEPT, _KEPT + 1)] + "."
    return " ".join(words)


def _misread(name: str, draw: RandomStream) -> str:
    """Misread one to three letters of the name, never its first."""
    at = [i for i, letter in enumerate(name) if i and letter in _MISREAD]
    letters = list(name)
    for i in draw.sample(at, min(draw.between(1, 3), len(at))):
        letters[i] = _MISREAD[letters[i]]
    return "".join(letters)
