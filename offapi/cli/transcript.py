"""What a command says to a person, kept in a run's folder as its console.log.

Every attempt at a run is appended, without the redraws of progress bars. Left out: the result of
--json, and lines beyond `MOST` that were said before there was a run.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from offapi.errors import OffapiError, describe_error
from offapi.text.display import terminal_safe

if TYPE_CHECKING:
    from rich.table import Table

MOST = 1000  # lines
WIDTH = 200  # columns of a table in the file


class Transcript:
    """The lines said so far; they go into a file while one is open."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque(maxlen=MOST)
        self._path: Path | None = None
        self._begun: set[Path] = set()  # files that have this attempt's first line

    def add(self, text: str) -> None:
        """Keep `text`. A disk that refuses it loses it, and stops nothing."""
        self._waiting.append(text)
        if self._path is None:
            return
        lines = "".join(f"{line}\n" for line in self._waiting)
        with suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, lines.encode())
                self._waiting.clear()
            finally:
                os.close(file)

    def add_table(self, table: Table) -> None:
        """Keep a table as text."""
        import io

        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=WIDTH, color_system=None, highlight=False).print(table)
        self.add("\n".join(line.rstrip() for line in text.getvalue().splitlines()))

    @contextmanager
    def kept_in(self, path: Path) -> Iterator[None]:
        """Keep all lines in `path`, those of before included, and why the block failed."""
        outer, self._path = self._path, path
        if path not in self._begun:
            self._waiting.appendleft(f"--- {datetime.now(UTC).isoformat(timespec='seconds')}")
            self._begun.add(path)
        try:
            yield
        except KeyboardInterrupt:
            self.add("error: interrupted.")
            raise
        except Exception as error:
            for line in error_lines(error):
                self.add(line)
            raise
        finally:
            self._path = outer


def error_lines(error: Exception) -> list[str]:
    """Return an error as a person reads it: what, where and the next step, each safe to show."""
    if not isinstance(error, OffapiError):
        return [f"error: {terminal_safe(describe_error(error))}"]
    lines = [f"error: {terminal_safe(error.what)}"]
    if error.where:
        lines.append(f"  where: {' '.join(terminal_safe(error.where).splitlines())}")
    if error.next_step:
        lines.append(f"   next: {terminal_safe(error.next_step)}")
    return lines
