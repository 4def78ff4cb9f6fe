"""A process that ends groups of processes where the process that started them cannot any more.

It runs none of the user's code, and is in a session of its own. Left out: Windows, and a power cut.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

WAIT = """import os, shutil, sys
live = set()
for line in sys.stdin:
    (live.add if line[0] == "+" else live.discard)(int(line[1:]))
for group in live:
    try:
        os.killpg(group, 9)
    except OSError:
        pass
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class GroupReaper:
    """It reads `+ID` and `-ID` of groups that begin and end, until the last writer has ended.

    Then it kills the groups that are left, and removes `folder`.
    """

    def __init__(self, folder: Path) -> None:
        reading, self.writing = os.pipe()
        command = [sys.executable, "-I", "-S", "-c", WAIT, os.fspath(folder.absolute())]
        self._process = subprocess.Popen(
            command,
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reading)
        self._open = True

    def hand_over(self) -> None:
        """Close this process's end, once the process that starts groups has it."""
        if self._open:
            self._open = False
            with suppress(OSError):
                os.close(self.writing)

    def wait(self) -> None:
        """Wait until the groups are gone, after the process that started them has ended."""
        self.hand_over()
        self._process.wait()
