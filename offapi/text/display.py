"""Text as a person reads it: durations, counts, shortened texts, and text safe for a terminal.

Left out: intervals (`offapi.stats.interval`) and tables (`offapi.report.render`).
"""

from __future__ import annotations

import re

# Unicode's Bidi_Control: they show text in another order than it has
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\ud800-\udfff]")


def duration(seconds: float) -> str:
    """Write a duration as `40 s`, `7 min` or `2.5 h`."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plural(count: int, noun: str, many: str = "") -> str:
    """Write a count with its noun, as `1 row` or `2,000 rows`; `many` is an irregular plural."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def share(count: int, of: int, noun: str, verbs: tuple[str, str]) -> str:
    """Write a count out of another with its verb, as `1 of 3 rows is` or `2 of 3 rows are`."""
    return f"{count:,} of {plural(of, noun)} {verbs[count != 1]}"


def shorten(text: str, most: int, mark: str = "…") -> str:
    """Cut `text` to at most `most` characters; a cut text ends with `mark`."""
    return text if len(text) <= most else text[: most - len(mark)] + mark


def left_out(characters: int) -> str:
    """Write how many characters follow the shown beginning of a text."""
    return f"… ({plural(characters, 'more character')})"


def terminal_safe(text: str) -> str:
    """Replace what a terminal or a page would obey instead of showing it; keep line ends and tabs.

    That is control characters, those that change the direction of text, and halves of characters.
    Everything that commands and reports show goes through it, in one place each.
    """
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def safe_line(text: str, most: int) -> str:
    """Return `text` as one line that a terminal and a log can show.

    Control characters become spaces; after `most` characters it is cut and ends in `...`.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= most else line[:most] + "..."
