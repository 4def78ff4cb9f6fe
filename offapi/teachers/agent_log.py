"""A file of traces that only grows, and the file of failures that stands next to it.

A trace is on disk before the next one is awaited, so a kill loses none. Left out: grading.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from offapi.errors import DataError
from offapi.files.append import append_whole, remedy
from offapi.files.lock import open_locked
from offapi.teachers.teacher import Usage

Key = tuple[str, str, str]  # document, teacher, question
_BEGIN = b'{"id":'  # of every line


def usage_of(path: Path, teacher: str) -> Usage:
    """Return what `teacher` read and wrote for the traces in `path` and the failures next to it."""
    used = Usage()
    for file in (path, failures_of(path)):
        for line in file.read_bytes().splitlines() if file.exists() else ():
            with suppress(ValueError, KeyError, TypeError):  # the log itself says what is wrong
                source = orjson.loads(line)["source"]
                used += Usage(**source["usage"]) if source["teacher"] == teacher else Usage()
    return used


def failures_of(path: Path) -> Path:
    """Return the file of the failures that goes with the traces in `path`."""
    return path.with_name(f"{path.name}.failed")


class AgentLog:
    """Traces in `path`, failures in `path` with `.failed` after it, written by one process.

    Raise DataError where a line is not a labelled trace, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.failed_path = path, failures_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = open_locked(path, os.O_APPEND)
        except OSError as error:
            what = f"cannot open the file of traces: {error.strerror}."
            raise DataError.at(what, path=path, next_step="Check the path.") from None
        try:
            self.done, self.failed = self._keys(path), self._keys(self.failed_path)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if os.fstat(self._file).st_size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def append(self, row: Mapping[str, Any], *, failed: bool) -> None:
        """Write one whole line and wait until it is on disk."""
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        path = self.failed_path if failed else self.path
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            append_whole(file, line, sync=True)
        except OSError as error:
            what = f"the trace cannot be written: {error.strerror}."
            step = f"{remedy(error)} Then run the command again; earlier traces are kept."
            raise DataError.at(what, path=path, next_step=step) from error
        finally:
            os.close(file)

    def _keys(self, path: Path) -> dict[Key, Mapping[str, Any]]:
        """Return each line's source by its key. The file then ends with a whole line.

        A last line that a crash has torn is cut off, but only once all others are known to be
        traces: another file, named by mistake, stays as it is.
        """
        raw = path.read_bytes() if path.exists() else b""
        *lines, rest = raw.split(b"\n")
        torn = bool(rest) and _entry(rest) is None
        if torn and not (rest.startswith(_BEGIN) or _BEGIN.startswith(rest)):
            raise _not_a_trace(path, len(lines) + 1)
        keys = {}
        for number, line in enumerate(lines if torn or not rest else [*lines, rest], start=1):
            if (entry := _entry(line)) is None:
                raise _not_a_trace(path, number)
            keys[entry[0]] = entry[1]
        if torn:
            os.truncate(path, len(raw) - len(rest))
        elif rest:  # saved by an editor
            with path.open("ab") as file:
                file.write(b"\n")
        return keys


def _entry(line: bytes) -> tuple[Key, Mapping[str, Any]] | None:
    """Return the key and the source of a line; None where it is not a labelled trace."""
    try:
        row = orjson.loads(line)
        source = row["source"]
        return (str(row["id"]), source["teacher"], source["question"]), source
    except (ValueError, KeyError, TypeError):
        return None


def _not_a_trace(path: Path, line: int) -> DataError:
    what = "the line is not a trace that `offapi label` wrote."
    step = "Name another file with --out. Nothing was changed."
    return DataError.at(what, path=path, line=line, next_step=step)
