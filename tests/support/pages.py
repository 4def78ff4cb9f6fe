"""README and the pages of docs/, and the fenced blocks in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]*)")?\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title ("" without), its text, and the page it is on."""

    page: Path
    language: str
    title: str
    text: str

    @property
    def name(self) -> str:
        """The block as a test's id: its page and its first line."""
        first = self.text.strip().splitlines()[0] if self.text.strip() else "empty"
        return f"{self.page.relative_to(ROOT)}: {first}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line of a shell block."""
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        return [command for command in words if command]


def pages() -> list[Path]:
    """Return README, CONTRIBUTING and every page of docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    for indent, language, title, text in FENCE.findall(page.read_text("utf-8")):
        lines = [line.removeprefix(indent) for line in text.splitlines(keepends=True)]
        yield Block(page, language, title, "".join(lines))
