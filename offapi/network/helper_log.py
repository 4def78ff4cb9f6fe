"""A log of a helper process's network attempts, which survives a forced end of the helper.

The file has no name and is inherited: it lasts as long as a process has it open. Left out: Windows.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from typing import Any

from offapi.network import guard


class Journal:
    """A log made by the process that starts a helper, and passed to the helper as an argument."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        self._descriptor, self._closed = descriptor, False

    def __reduce__(self) -> tuple[Callable[[Any], Journal], tuple[Any]]:
        return _inherited, (DupFd(self._descriptor),)

    def keep(self) -> None:
        """Write every attempt from now on. Call it in the helper."""
        guard.keep(lambda attempt: os.write(self._descriptor, json.dumps(attempt).encode() + b"\n"))

    def close(self) -> None:
        """Count the helper's attempts as this process's own.

        Call it in the starting process when the helper has ended; a second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        size = os.fstat(self._descriptor).st_size
        *lines, _ = os.pread(self._descriptor, size, 0).split(b"\n")
        os.close(self._descriptor)
        for line in lines:
            guard.count(tuple(json.loads(line)))


def _inherited(descriptor: Any) -> Journal:
    return Journal(descriptor.detach())
