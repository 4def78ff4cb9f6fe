"""Which stored models a process uses, so that no other process removes them meanwhile.

The system releases the lock however the process ends. Left out: stores that nobody can write to,
and network file systems without locks: there nothing is locked, and nothing refused.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offapi.errors import ModelError

FILE = ".in-use"
_held: dict[Path, int] = {}  # model folder -> descriptor, as long as this process lives


def keep_model(folder: Path) -> None:
    """Let no other process remove the stored model in `folder` while this process lives."""
    if folder in _held and _is_same(_held[folder], folder):
        return
    with suppress(OSError):
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _release(folder)
        _held[folder] = descriptor


@contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Hold the stored model in `folder` alone; raise ModelError where another process uses it."""
    _release(folder)
    try:
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ModelError(
            f"the model cannot be changed: {error.strerror}.",
            where=str(folder),
            next_step="Check who owns that folder and its permissions.",
        ) from error
    try:
        _lock_alone(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock_alone(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ModelError(
            "the model is in use by another offapi command.",
            where=str(folder),
            next_step="Wait until it has ended, or end it. Then run this command again.",
        ) from None
    except OSError:
        return  # a file system without locks


def _release(folder: Path) -> None:
    descriptor = _held.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


def _is_same(descriptor: int, folder: Path) -> bool:
    """Return whether the held file is still the one in `folder`: the model may be a new one."""
    try:
        return os.path.samestat(os.fstat(descriptor), (folder / FILE).stat())
    except OSError:
        return False
