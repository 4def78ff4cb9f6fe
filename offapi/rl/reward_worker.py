"""What one of the rewarding processes does: batches in, what they are worth out.

Left out: ending a process whose call never returns, see `rewards`; and, except on Linux, ending
with a killed trainer while C code holds Python.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing as mp
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from offapi.errors import OffapiError
from offapi.network.helper_log import Journal
from offapi.rl.reward import Asked, Fault, Judge, Judged, Note
from offapi.task import load_task


def serve(pipe: Connection, note: Note, task_file: Path, journal: Journal) -> None:
    """Answer batches until the pipe ends."""
    journal.keep()
    os.setsid()  # what a reward starts is ended with this process, and Ctrl-C is the trainer's
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, lambda *_: None
        )  # not SIG_IGN, which programs that a reward starts would inherit
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    _end_with_parent()
    os.dup2(2, 1)  # what a reward prints must not mix with the command's one object on stdout
    sys.stdout = sys.stderr  # and is not held back until the process is ended
    judge: Judge | None = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError), asyncio.Runner() as loop:
        while True:
            asked: Sequence[Asked] = pipe.recv()
            answer: list[Judged] | Fault | OffapiError
            try:
                judge = judge or Judge(load_task(task_file), note, loop)
                answer = judge.judge(asked)
            except OffapiError as error:
                answer = error
            note.name = b""
            pipe.send(answer)


def _end_with_parent() -> None:
    """End when the trainer was killed, whatever is under way here."""
    parent = mp.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":  # threads do not run while C code holds the interpreter
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent.pid:
            os._exit(1)
