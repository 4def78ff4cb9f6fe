"""Appending to a file such that a kill or a full disk leaves no partial line before a whole one.

Left out: locking (`offapi.files.lock`), and lines torn by a power cut, which a reader drops.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from offapi.errors import RunError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a limit of the disk, the quota or the file


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
    step = f"{remedy(error)} Then run the same command again; it resumes."
    return RunError(f"cannot be written: {error.strerror}.", where=str(path), next_step=step)


def remedy(error: OSError) -> str:
    """Return what to do about a disk that refuses a write."""
    if error.errno in FULL:
        return "Free some space, or raise the quota or the file size limit."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Make the folder writable, or choose another one."
    if error.errno == errno.EXDEV:
        return "The folder spans file systems: choose one that lies on a single file system."
    if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
        return "This file system cannot do what is needed: choose a folder on a local disk."
    return "Check the disk: space does not help."
