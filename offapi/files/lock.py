"""Locks for one process at a time, which the system releases however their holder ends.

Left out: machines that share a folder, and Windows.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offapi.errors import RunError
from offapi.files.append import remedy

SECONDS_BETWEEN_TRIES = 0.05


class CannotLock(RunError):
    """The place of a lock takes none, such as a read-only disk; nobody else holds it."""


@contextmanager
def hold(file: Path, what: str, where: str, seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock `file`, which stays on disk; wait for it at most `seconds`.

    Then raise a RunError that names the process that holds it; CannotLock where the file takes no
    lock. `what`, at `where`, is what the lock protects, for the message.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _no_lock(error, file) from error
    try:
        until = time.monotonic() + seconds
        while not _taken(descriptor, file):
            if time.monotonic() >= until:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "another process"
                step = "Wait until it has ended, or end it. Then run this command again."
                raise RunError(f"{what} is being written by {holder}.", where=where, next_step=step)
            time.sleep(SECONDS_BETWEEN_TRIES)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def wait_for(file: Path) -> Iterator[None]:
    """Hold the lock `file`, which stays on disk, after all who asked for it before."""
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError as error:
            raise _no_lock(error, file) from error
        yield


def open_locked(path: Path, flags: int = 0) -> int:
    """Open a file that one process at a time may write; create it (mode 0600) if missing.

    Return its descriptor; closing it releases the lock. `flags` are added to `os.open`'s. Raise
    RunError if another process holds the file, and OSError if it cannot be opened.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        try:
            taken = _taken(file, path)
        except RunError:
            os.close(file)
            raise
        if not taken:
            os.close(file)
            step = "Wait for that command to end, or write to another file with --out."
            raise RunError("another process is writing this file.", where=str(path), next_step=step)
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            return file
        os.close(file)  # its writer renamed or removed it between our opening and our lock


def _taken(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _no_lock(error, path) from error
    return True


def _no_lock(error: OSError, path: Path) -> CannotLock:
    """Return the error for a file that cannot be locked, as on some network file systems."""
    what = f"cannot be locked: {error.strerror}."
    return CannotLock(what, where=str(path), next_step=remedy(error))
