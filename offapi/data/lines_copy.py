"""A server's kept answers as a file of lines, for readers that read one in pieces."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offapi.files.capture_file import NAME, CaptureFile
from offapi.workers.removed import removed_at_end


@contextmanager
def as_lines_file(path: Path) -> Iterator[Path]:
    """Give `path`, or a private copy of kept answers as JSON Lines, while the block lasts."""
    found = CaptureFile.find(path)
    if found is None:
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="offapi-"))
    with removed_at_end(folder):
        copy = folder / f"{NAME}.jsonl"
        with copy.open("wb") as file:
            file.writelines(found.lines())
        yield copy
