"""The words that people read: messages, help and reports hold none of those that were given up."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GONE = {
    "reckon": "estimate, compute or compare",
    "mend": "fix",
    r"goe?s? on": "continue or resume",
    r"gone on": "continued or resumed",
    "going on with": "resuming",
    r"(?<!there )(?:is|are) no (?=\w)": "is not a",
    r"(?<!cannot )tells?": "say, report or show",
    "told": "said, reported or shown",
    r"(?<![`-])roads?(?!`)": "recipe, or arm for one trained instance",
    "freshness": "drift",
    "stale": "drifted",
    "beside": "with or next to",
    r"hangs? on": "depends on",
    r"comes? to nothing": "is skipped",
}
WORDS = re.compile("|".join(rf"\b{word}\b" for word in GONE), re.IGNORECASE)
STORED = {"a score of something that is no model's answer"}  # reasons that files of before hold


def texts(path: Path) -> list[tuple[int, str]]:
    """Return the strings and docstrings of a source file that hold more than one word."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.lineno, " ".join(node.value.split())))
    return [(line, text) for line, text in found if " " in text and text not in STORED]


FOLDERS = ("offapi", "backends", "recipes")
DATA = {"word_lists.py"}  # names for made-up documents
SOURCES = sorted(
    path for name in FOLDERS for path in (ROOT / name).rglob("*.py") if path.name not in DATA
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_has_a_word_given_up(path: Path) -> None:
    wrong = [
        f"line {line}: {match[0]!r} in {text[max(0, match.start() - 30) : match.end() + 30]!r}"
        for line, text in texts(path)
        for match in WORDS.finditer(text)
    ]
    assert wrong == []
