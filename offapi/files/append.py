"""Appending to a file such that a kill or a full disk leaves no partial line before a whole one.

Left out: locking (`offapi.files.lock`), and lines torn by a power cut, which a reader drops.
"""

from __future__ import annotations

import os
from pathlib import Path

from offapi.errors import RunError


def append_whole(file: int, data: bytes, *, sync: bool = False) -> None:
    """Write `data` at the end of an open file, all of it or nothing.

    `sync`: return when it is on disk, but without macOS's slow full sync, so that a power cut may
    still lose it. Raise OSError if the disk refuses; the file is then as before.
    """
    before = os.lseek(file, 0, os.SEEK_END)
    try:
        write_all(file, data)
        if sync:
            os.fsync(file)
    except OSError:
        os.ftruncate(file, before)
        raise


def append_or_refuse(file: int, data: bytes, path: Path, *, sync: bool = False) -> None:
    """Append to the file at `path` as `append_whole` does; raise RunError if the disk refuses."""
    try:
        append_whole(file, data, sync=sync)
    except OSError as error:
        raise refused(error, path) from error


def write_all(file: int, data: bytes) -> None:
    """Write all of `data` at the file's position. Raise OSError if the disk refuses."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def refused(error: OSError, path: Path) -> RunError:
    """Return the error for an unwritable file that the same command can resume."""
    step = "Free some space, then run the same command again to resume."
    return RunError(f"cannot be written: {error.strerror}.", where=str(path), next_step=step)
