"""Rewards of fresh completions, scored in processes of their own while the next ones are decoded.

Nothing of the user's code runs in the trainer, and no call of it can hold the trainer up: a process
at one call for too long is ended, in whatever code it is. A faulty reward is never a reward: it
stops the run, and the completions it was asked about are kept. Left out: trying a call again.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType

from offapi.errors import ConfigError, OffapiError, RunError
from offapi.files import atomic
from offapi.network.helper_log import Journal
from offapi.rl.reward import BATCH, Asked, Fault, Judged, Note, rewarded
from offapi.rl.reward_worker import serve
from offapi.workers import spawn

__all__ = ["Asked", "Judged", "Rewards", "rewarded"]

POLL = 0.1  # seconds
STEP = "Mend it, or give a call more seconds; checks must end at any answer."


class Rewards:
    """The rewarding processes of the task in `task_file`, while the context lasts.

    `seconds` is how long one call of a check, or of the task's `reward`, may take; `kept` the file
    that tells of the completions that stopped the run. Enter it in the thread that lives as long.
    """

    def __init__(self, task_file: Path, workers: int, seconds: float, kept: Path) -> None:
        self._task_file, self._workers, self._seconds, self._kept = (
            task_file,
            workers,
            seconds,
            kept,
        )
        self._failure: OffapiError | None = None
        self._lock = Lock()
        self._closed = False

    def __enter__(self) -> Rewards:
        self._processes = [_Process(self._task_file) for _ in range(self._workers)]
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(self._workers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._closed = True
        for process in self._processes:
            process.end()
        self._threads.shutdown(cancel_futures=True)

    def submit(self, asked: Sequence[Asked]) -> Future[list[Judged]]:
        """Have a batch judged, as a whole, in one process;
        returns at once. Batches spread over the processes.

        The result is in the batch's order. It raises ConfigError where the user's code raised, gave
        no finite number (or None), or too few, took too long or ended its process; then so do all
        results after it.
        """
        return self._threads.submit(self._judge, tuple(asked))

    def not_deterministic(self, asked: Sequence[Asked], judged: Sequence[Judged]) -> list[str]:
        """The rows of which some reward differs when
        `asked`, first judged as `judged`, is judged again.
        """
        pairs = zip(asked, judged, self.submit(asked).result(), strict=True)
        return list(
            dict.fromkeys(one.row for one, first, again in pairs if first.reward != again.reward)
        )

    def _judge(self, asked: tuple[Asked, ...]) -> list[Judged]:
        if not asked:
            return []
        process = self._idle.get()
        try:
            if self._failure is None:
                answer = process.ask(asked, self._seconds)
                if isinstance(answer, list):
                    return answer
                with self._lock:
                    if self._failure is None and not self._closed:
                        self._failure = (
                            self._stop(answer, asked) if isinstance(answer, Fault) else answer
                        )
            raise self._failure or RunError("the rewarding processes were ended.")
        finally:
            self._idle.put(process)

    def _stop(self, fault: Fault, asked: tuple[Asked, ...]) -> ConfigError:
        """The error that ends the run, once the completions that led to it are kept."""
        blamed = asked if fault.index == BATCH else (asked[fault.index],)
        told = {"what": fault.what, "where": fault.where, "asked": [asdict(one) for one in blamed]}
        text = json.dumps(
            {**told, "traceback": fault.traceback}, ensure_ascii=False, indent=1, default=str
        )
        try:
            atomic.write_file(
                self._kept, text.encode("utf-8", "backslashreplace")
            )  # a lone surrogate: JSON's escape
            kept = f"Kept in {self._kept}: "
        except RunError as error:
            kept = f"Not kept ({error.what}): "
        kept += "the completion" if len(blamed) == 1 else f"the {len(blamed)} completions"
        return ConfigError(
            fault.what, where=fault.where, next_step=f"{fault.next_step} {kept}, and the traceback."
        )


class _Process:
    """One process, which has one batch at a time."""

    def __init__(self, task_file: Path) -> None:
        context = mp.get_context("spawn")
        self._task_file, self._ended = task_file, False
        self._note: Note = context.RawValue(Note)
        self._pipe, theirs = context.Pipe()
        self._journal = Journal()
        arguments = (theirs, self._note, task_file, self._journal)
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        spawn.start(self._process, signal.SIGINT, signal.SIGTERM)  # until it handles them
        theirs.close()

    def ask(self, asked: tuple[Asked, ...], seconds: float) -> list[Judged] | Fault | OffapiError:
        """The answer to a batch, or that no call of it
        may take `seconds` and that its process ended.
        """
        with suppress(OSError):  # it died: `recv` finds out
            self._pipe.send(asked)
        if not self._answers(seconds):
            fault = self._fault(
                f"took more than {seconds:g} s and was ended with its process.", asked
            )
            self.end()
            return fault
        try:
            answer: list[Judged] | Fault | OffapiError = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            self.end()
            return self._fault(f"ended its process ({_ending(self._process.exitcode)}).", asked)
        return answer

    def _answers(self, seconds: float) -> bool:
        """Wait for the answer; False when one call takes too long.

        A suspended machine or command does not count.
        """
        call, spent, looked = 0, 0.0, time.monotonic()
        while not self._pipe.poll(POLL):
            now = time.monotonic()
            under_way = self._note.name and self._note.calls == call
            spent = spent + min(now - looked, 2 * POLL) if under_way else 0.0
            call, looked = self._note.calls, now
            if spent > seconds:
                return False
        return True

    def _fault(self, what: str, asked: tuple[Asked, ...]) -> Fault:
        if not self._note.name:
            what = f"loading it, or what it left running, {what}"
            return Fault(
                what, str(self._task_file), "See what it does when it is loaded.", BATCH, ""
            )
        where = f"{self._task_file}, {self._note.at(asked)}"
        return Fault(f"the call {what}", where, STEP, self._note.index, "")

    def end(self) -> None:
        """End it and all it started, and take its exit code
        and journal, so that no zombie and no attempt is left.
        """
        if self._ended:
            return  # its id may be another's by now
        self._ended = True
        assert self._process.pid
        with suppress(
            ProcessLookupError, PermissionError
        ):  # it does not lead a group yet, or none is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._journal.close()


def _ending(code: int | None) -> str:
    return (
        f"signal {signal.Signals(-code).name}"
        if code is not None and code < 0
        else f"exit code {code}"
    )
