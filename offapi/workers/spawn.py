"""Starting a multiprocessing process that the terminal's Ctrl-C does not reach.

The starting process gets the signal and ends it. Left out: Windows.
"""

from __future__ import annotations

import signal
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess


def start(process: BaseProcess, *deaf_to: signal.Signals) -> None:
    """Start `process` with those signals blocked from its first moment on."""
    resource_tracker.ensure_running()  # the first spawn starts it, which would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf_to)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
