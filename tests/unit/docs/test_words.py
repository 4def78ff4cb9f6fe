"""The words of README, docs/ and CHANGELOG: one word for one thing, and none of the old ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import DOCS, ROOT, pages

OLD = {
    "reckon": r"\breckon(s|ed|ing)?\b",
    "mend": r"\bmend(s|ed|ing)?\b",
    "goes on": r"\b(goes|go|going|went) on\b",
    "is no": r"(?<!there )\b(is|are) no (?!longer)",
    "tell": r"(?<!cannot )(?<!cannot\n)\b(tells?|told|telling)\b",
    "freshness": r"\bfreshness\b",
    "the own model": r"\b(an|the) own\b",
}
ROAD = r"\broads?\b"
MAY_SAY_ROAD = {"answers.md"}  # prose about the essay's question
GENERATED = {"cli.md"}  # the help texts' own words
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
def test_no_old_words(path: Path) -> None:
    if path.name in GENERATED:
        return
    text = words_of(path)
    found = {word: re.search(pattern, text, re.I) for word, pattern in OLD.items()}
    if path.name not in MAY_SAY_ROAD:
        found["road"] = re.search(ROAD, text, re.I)
    hits = {
        word: text[max(0, hit.start() - 40) : hit.end() + 20] for word, hit in found.items() if hit
    }
    assert hits == {}


def test_old_words_would_be_found() -> None:
    for word in ("It reckons", "mended", "it goes on", "is no date", "It tells", "told apart"):
        assert any(re.search(pattern, word, re.I) for pattern in OLD.values()), word


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
