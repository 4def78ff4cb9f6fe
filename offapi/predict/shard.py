"""One of N equal parts of a pile of documents, the same under any scheduler.

Left out: starting the parts, which a scheduler does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.files.hashing import hash64


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `of`: a document belongs to one part by its id alone."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `I/N`. Raise ConfigError for anything else, and for an I beyond N."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            step = "Write it as 1/4 to 4/4 for four parts."
            raise ConfigError(f"--shard must be I/N, got {text!r}.", next_step=step)
        return cls(int(match[1]), int(match[2]))

    def take(self, documents: Sequence[Document]) -> list[Document]:
        """Return the documents of this part, in order."""
        own = self.number - 1
        return [each for each in documents if hash64(each.id) % self.of == own]

    def out(self, path: Path) -> Path:
        """Return the file of this part: `answers.jsonl` is `answers-2-of-4.jsonl` there."""
        if self.of == 1:
            return path
        width = len(str(self.of))
        return path.with_name(f"{path.stem}-{self.number:0{width}}-of-{self.of}{path.suffix}")
