"""Words that were given up for others, wherever a reader meets them: code, help, docs, README."""

from __future__ import annotations

import re

GIVEN_UP = {  # what is written instead: pattern
    "estimate, compute or compare": r"\breckon(s|ed|ing)?\b",
    "fix": r"\bmend(s|ed|ing)?\b",
    "continue or resume": r"\b(goes|go|going|gone|went) on\b",
    "is not a": r"(?<!there )\b(is|are) no (?!longer\b)(?=\w)",
    "say, report or show": r"(?<!cannot )\b(tells?|told|telling)\b",
    "drift": r"\b(freshness|stale)\b",
    "your own model": r"\b(an|the) own\b",
    "with or next to": r"\bbeside\b",
    "depends on": r"\bhangs? on\b",
    "is skipped": r"\b(comes?|came) to nothing\b",
    "recipe, or arm for one trained instance": r"(?<![`-])\broads?\b(?!`)",
}


def find_given_up(text: str, but: str = "") -> dict[str, str]:
    """Return what to write instead of each word given up, and the place in `text`.

    `but` is a replacement whose word `text` may use.
    """
    line = " ".join(text.split())
    hits = {instead: re.search(word, line, re.I) for instead, word in GIVEN_UP.items()}
    return {
        instead: line[max(0, hit.start() - 40) : hit.end() + 30]
        for instead, hit in hits.items()
        if hit and instead != but
    }
