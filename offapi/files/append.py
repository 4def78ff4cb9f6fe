"""Appending to a file so that a kill or a full disk never leaves half of a line among whole ones.

Left out: locking (`offapi.files.lock`), and lines torn by a power cut, which a reader drops.
"""

from __future__ import annotations

import os
from pathlib import Path

from offapi.errors import RunError


def append_whole(file: int, data: bytes, *, sync: bool = False) -> None:
    """Write `data` at the end of an open file, all of it or nothing.

    `sync`: return when it is on disk; without macOS's slow full sync, so that a power cut may
    still lose it. Raises OSError when the disk refuses, with the file as it was.
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
    """Append to the file at `path` as `append_whole` does, with RunError when the disk refuses."""
    try:
        append_whole(file, data, sync=sync)
    except OSError as error:
        raise refused(error, path) from error


def write_all(file: int, data: bytes) -> None:
    """Write all of `data` where the open file stands. Raises OSError when the disk refuses."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def refused(error: OSError, path: Path) -> RunError:
    """Say that a file which the same command can resume could not be written."""
    step = "Free some space and run the same command again: it goes on where it stopped."
    return RunError(f"cannot be written: {error.strerror}.", where=str(path), next_step=step)
