"""What one episode has for itself: its document, a temporary folder, and its view of a database.

A tool asks for it by a parameter annotated `offapi.EpisodeState`, which the model is not shown.
Left out: state across episodes.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from offapi.errors import ConfigError


class EpisodeState:
    """One episode's own state, removed at its end.

    `values` is for what its tools remember from call to call, such as the page last read.
    """

    def __init__(self, document: str, id: str = "", *, base: Path = Path()) -> None:
        """Make the state of an episode; relative paths start at `base`, the task file's folder."""
        self.document, self.id = document, id
        self.values: dict[str, Any] = {}
        self._base = base
        self._folder: Path | None = None
        self._connections: dict[tuple[Path, bool], sqlite3.Connection] = {}

    @property
    def folder(self) -> Path:
        """A folder for this episode's files, made on first use and removed at the end."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="offapi-episode-"))
        return self._folder

    def sqlite(self, path: str | Path, writable: bool = False) -> sqlite3.Connection:
        """Return a connection to the database at `path`, the same one for every call.

        It is read-only; with `writable` it is to a copy of this episode's own. Raise ConfigError
        where there is no database.
        """
        file = self._base / path
        key = (file, writable)
        if key not in self._connections:
            self._connections[key] = self._copy(file) if writable else _read_only(file)
        return self._connections[key]

    def _copy(self, file: Path) -> sqlite3.Connection:
        copy = self.folder / f"{len(self._connections)}-{file.name}"
        source, target = _read_only(file), sqlite3.connect(copy, check_same_thread=False)
        source.backup(target)
        source.close()
        return target

    def close(self) -> None:
        """Close the connections and remove the folder."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _read_only(file: Path) -> sqlite3.Connection:
    if not file.is_file():
        step = "Name a SQLite file; a relative path starts at the task file's folder."
        raise ConfigError("there is no such database.", where=str(file), next_step=step)
    address = f"file:{quote(str(file.absolute()))}?mode=ro"
    return sqlite3.connect(address, uri=True, check_same_thread=False)
