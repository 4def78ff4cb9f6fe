"""Messages, help, docstrings, recipes and report pages use none of the words that were given up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from words import GIVEN_UP, find_given_up

ROOT = Path(__file__).parents[2]
FOLDERS = ("offapi", "backends", "recipes")
DATA = {"word_lists.py"}  # names for made-up documents
STORED = {"a score of something that is no model's answer"}  # a reason in files of before
FILES = sorted(
    path
    for name in FOLDERS
    for path in (ROOT / name).rglob("*")
    if path.suffix in {".py", ".toml", ".html"} and path.name not in DATA
)


def texts(path: Path) -> list[str]:
    """Return the strings and docstrings of a source file, or another file's whole text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [text]
    constants = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    strings = [node.value for node in constants if isinstance(node.value, str)]
    return [string for string in strings if " " in string and string not in STORED]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_given_up(path: Path) -> None:
    found = [hits for text in texts(path) if (hits := find_given_up(text))]
    assert found == []


def test_words_given_up_are_found() -> None:
    wrong = (
        "It reckons", "was mended", "it goes on", "a is no date", "told apart", "gone stale",
        "the own model", "beside it", "hangs on", "came to nothing", "which road",
    )  # fmt: skip
    assert [len(find_given_up(text)) for text in wrong] == [1] * len(GIVEN_UP)
    assert find_given_up("there is no file; you cannot tell; it is no longer here") == {}
