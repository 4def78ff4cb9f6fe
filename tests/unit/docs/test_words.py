"""The words of README, docs/ and CHANGELOG: one word for one thing, and none of the old ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import DOCS, ROOT, pages
from words import find_given_up

PROSE = {"answers.md"}  # the essay's question is asked with the essay's metaphor
GLOSSARY = (
    "task document gold label trace check verdict grade reward judge teacher student adapter recipe"
    " run arm prompt group completion rollout episode advantage reference audit gate drift backend"
)
WRITTEN = [*pages(), ROOT / "CHANGELOG.md"]


def words_of(path: Path) -> str:
    """A page without its code, which may hold names and options."""
    text = path.read_text("utf-8")
    text = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`", "", text)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_no_word_given_up(path: Path) -> None:
    but = "recipe, or arm for one trained instance" if path.name in PROSE else ""
    assert find_given_up(words_of(path), but) == {}


def test_glossary_has_its_words() -> None:
    rows = re.findall(r"^\| ([a-z -]+) \| (.+) \|$", (DOCS / "glossary.md").read_text(), re.M)
    defined = dict(rows)
    assert set(GLOSSARY.split()) <= set(defined)
    assert {"base model", "held-out documents", "reference window"} <= set(defined)
    named = [name for name, _ in rows if name != "word"]
    assert named == sorted(named)


def test_nobody_is_sent_to_a_distribution_of_another_project() -> None:
    """`offapi` on the package index is not this project; only the checkout is installed."""
    install = re.compile(r"pip3? install (?:-\S+ )*['\"]?offapi(?![-_]kit)\b|\boffapi\[", re.I)
    folders = ("offapi", "backends", "recipes", "scripts", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pyproject.toml"]
    files = [path for path in files if path.suffix in ("", ".py", ".md", ".toml", ".sh", ".txt")]
    sent = [path for path in files if install.search(path.read_text("utf-8"))]
    assert sent == []
    assert install.search("pip install 'offapi[torch]'")
    assert install.search("pip install offapi")
    assert not install.search("pip install offapi-kit")
