"""Starting a process that the terminal's Ctrl-C does not reach, and that outlives nobody.

The starting process gets the signal and ends it. Left out: Windows, and programs that a helper
moves into a process group of their own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

_WATCH = "trap '' HUP INT TERM; (read -r _ <&3; kill -9 0) >/dev/null 2>&1 &"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def start(process: BaseProcess, *deaf_to: signal.Signals) -> None:
    """Start `process` with those signals blocked from its first moment on."""
    resource_tracker.ensure_running()  # the first spawn starts it, which would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf_to)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(starter: int, pipe: int) -> None:
    """Kill this process's group when `starter` is dead, whatever code runs here.

    `pipe` is the reading end of a pipe that ends with the process `starter`. Call it in a process
    that leads its group. A shell in the group waits for the end: threads of this process do not
    run while C code holds Python, and programs started here must end too.
    """
    if sys.platform == "linux":  # at once, for this process alone
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != starter:
            os._exit(1)
    with suppress(OSError):
        command = ["/bin/sh", "-c", f"exec 3<&0; {_WATCH}"]
        subprocess.run(command, stdin=pipe, check=False, restore_signals=True)
