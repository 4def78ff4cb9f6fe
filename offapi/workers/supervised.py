"""A supervised helper process: a call in it that hangs or crashes can be named and ended.

It answers jobs one after the other in its own session: Ctrl-C does not reach it, and it ends with
its starter, and so does what it has started. Before each call of the user's code it writes a note
into shared memory; a note sent through the pipe would cost more than many checks, and block the
process while nobody reads. Left out: Windows, and memory that a call's own child processes use.
"""

from __future__ import annotations

import functools
import multiprocessing as mp
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from offapi.errors import OffapiError
from offapi.network.helper_log import Journal
from offapi.workers import spawn

POLL = 0.1  # seconds between two looks at a process

JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")
_NOTE = struct.Struct("qq240s")  # turn, place, and the part of the name that fits


class NotedCall(NamedTuple):
    """A running call: its name, and the number of its row or completion.

    The time limit applies to a turn: one call, or all calls for one row.
    """

    turn: int
    place: int
    name: str


class CallNote:
    """The running call of a process: written there, and read by its starter."""

    def __init__(self) -> None:
        self._shared: Any = mp.RawArray("c", _NOTE.size)
        self._turn = self._place = 0

    def begin(self, place: int, name: str) -> None:
        """Begin a turn with the call of `name` for `place`."""
        self._turn, self._place = self._turn + 1, place
        self.call(name)

    def call(self, name: str) -> None:
        """Continue the turn with the call of `name`."""
        text = name.encode("utf-8", "replace")
        _NOTE.pack_into(self._shared, 0, self._turn, self._place, text)

    def clear(self) -> None:
        """Note that no call is running."""
        _NOTE.pack_into(self._shared, 0, 0, 0, b"")

    def read(self) -> NotedCall | None:
        """Return the running call, or None if there is none or it is being written."""
        turn, place, text = _NOTE.unpack_from(self._shared)
        name = text.rstrip(b"\0").decode("utf-8", "ignore")
        return NotedCall(turn, place, name) if turn else None


@dataclass(frozen=True)
class Ended:
    """Why there is no answer: the process ended during `call` (None: during no call).

    `how`: "exit code 3", "signal SIGSEGV" or what it used of memory; "" if the call took too long.
    """

    call: NotedCall | None
    how: str


@functools.cache
def most_memory() -> float:
    """Return the bytes that one helper process may use: half of this machine's, or container's.

    Two such processes would leave nothing for the command itself.
    """
    import psutil

    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # "max": no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total / 2


Prepare = Callable[[Any, CallNote], Callable[[JobT], AnswerT]]


class Supervised(Generic[JobT, AnswerT]):
    """A process that answers each job with `prepare(settings, note)(job)`, prepared at the first.

    Start it in a thread that lives as long as it is needed: on Linux the process ends with that
    thread. An OffapiError raised by `prepare` or the job is the answer.
    """

    def __init__(self, prepare: Prepare[JobT, AnswerT], settings: Any) -> None:
        self._prepare, self._settings = prepare, settings
        self._start()

    def _start(self) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._note, self._journal = CallNote(), Journal()
        self._turn, self._spent, self._looked = 0, 0.0, time.monotonic()
        arguments = (theirs, self._note, self._journal, self._prepare, self._settings)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._ended = False
        try:
            spawn.start(
                self._process, signal.SIGINT, signal.SIGTERM
            )  # until the process handles them
        except BaseException:
            self.end()
            raise
        theirs.close()

    def send(self, job: JobT) -> None:
        """Send a job. If the process has died, `take` finds out."""
        with suppress(OSError):
            self.pipe.send(job)

    def take(self) -> AnswerT | OffapiError | Ended:
        """Return the answer to the oldest job, or how the process ended; wait for it."""
        try:
            answer: AnswerT | OffapiError = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            self.end()
            return Ended(self._note.read(), ending(self._process.exitcode))
        return answer

    def end_if_stuck(self, seconds: float | None) -> Ended | None:
        """End the process if one turn takes more than `seconds` (None: no limit).

        End it too if a call uses more than `most_memory`: the next to end would be this process.
        Call it every POLL seconds. Time in which the machine or the command is suspended is free.
        """
        call, now = self._note.read(), time.monotonic()
        turn = call.turn if call else 0
        step = min(now - self._looked, 2 * POLL)
        self._spent = self._spent + step if turn and turn == self._turn else 0.0
        self._turn, self._looked = turn, now
        if seconds is not None and self._spent > seconds:
            self.end()
            return Ended(call, "")
        used, most = self._memory(), most_memory()
        if call is None or used <= most:
            return None
        self.end()
        return Ended(call, f"it used {used / 1e9:.1f} GB of memory, {most / 1e9:.1f} are allowed")

    def _memory(self) -> int:
        """Return the bytes that the process uses; 0 where it has ended."""
        import psutil

        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def restart(self) -> None:
        """Replace the process by a new one, which has no job."""
        self.end()
        self._start()

    def end(self) -> None:
        """End the process and all it started; take its exit code and its journal.

        A second call does nothing. The pipe is left to the garbage collector, because another
        thread may be waiting for it.
        """
        if self._ended:
            return  # its id may belong to another process by now
        self._ended = True
        if self._process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):  # it may lead no group yet
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()
        self._journal.close()


def ending(code: int | None) -> str:
    """Write a process's exit code as "exit code 3" or "signal SIGSEGV"."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(
    pipe: Connection, note: CallNote, journal: Journal, prepare: Prepare[Any, Any], settings: Any
) -> None:
    """Answer jobs until the pipe ends."""
    journal.keep()
    leave_terminal()
    starter = mp.parent_process()
    assert starter is not None
    assert starter.pid is not None
    spawn.end_with(starter.pid, starter.sentinel)
    answer: Callable[[Any], Any] | None = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            try:
                answer = answer or prepare(settings, note)
                reply: Any = answer(job)
            except OffapiError as error:
                reply = error
            note.clear()
            pipe.send(reply)


def leave_terminal() -> None:
    """Lead a session, so that Ctrl-C misses it and all that it starts can be ended."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # a program started here would inherit SIG_IGN
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.dup2(2, 1)  # a check's prints must not mix with the command's one object on stdout
    sys.stdout = sys.stderr  # not buffered until the process ends
