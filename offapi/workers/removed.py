"""A temporary file or folder that is gone when its block ends, also where the process is killed.

A second process waits for the end of a pipe that only this one holds, and then removes it.
Left out: a power cut.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WAIT = """import os, shutil, sys
sys.stdin.read()
if os.path.isdir(sys.argv[1]):
    shutil.rmtree(sys.argv[1])
elif os.path.exists(sys.argv[1]):
    os.remove(sys.argv[1])
"""


@contextmanager
def removed_at_end(path: Path) -> Iterator[None]:
    """Remove `path` at the end of the block, or of this process."""
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WAIT, os.fspath(path.absolute())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert waiting.stdin is not None
    try:
        yield
    finally:
        with suppress(OSError):
            waiting.stdin.close()
        waiting.wait()
