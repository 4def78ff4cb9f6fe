"""Rewards of fresh completions, scored in processes of their own while the next ones are decoded.

Nothing of the user's code runs in the trainer, and no call of it can hold the trainer up: a process
at one call for too long is ended, in whatever code it is. A faulty reward is never a reward: it
stops the run, and the completions it was asked about are kept. Left out: trying a call again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType

from offapi.errors import ConfigError, OffapiError, RunError
from offapi.files import atomic
from offapi.rl.reward import BATCH, Asked, Fault, Judged, judging, rewarded, rows_at
from offapi.workers.supervised import POLL, Ended, Supervised

__all__ = ["Asked", "Judged", "Rewards", "rewarded"]

_Process = Supervised[Sequence[Asked], list[Judged] | Fault]
_Failure = Fault | OffapiError

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
        self._processes: list[_Process] = []
        try:
            for _ in range(self._workers):
                self._processes.append(Supervised(judging, self._task_file))
        except BaseException:
            self._end()
            raise
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
        self._end()
        self._threads.shutdown(cancel_futures=True)

    def _end(self) -> None:
        for process in self._processes:
            process.end()

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
                answer = self._answer(process, asked)
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

    def _answer(self, process: _Process, asked: tuple[Asked, ...]) -> list[Judged] | _Failure:
        """What `process` makes of a batch, or the call at which it hung or ended."""
        process.send(asked)
        ended = None
        while ended is None and not process.pipe.poll(POLL):
            ended = process.end_if_stuck(self._seconds)
        answer = ended or process.take()
        return self._fault(answer, asked) if isinstance(answer, Ended) else answer

    def _fault(self, ended: Ended, asked: tuple[Asked, ...]) -> Fault:
        what = f"ended its process ({ended.how})."
        if not ended.how:
            what = f"took more than {self._seconds:g} s and was ended with its process."
        call = ended.call
        if call is None:
            what = f"loading it, or what it left running, {what}"
            step = "See what it does when it is loaded."
            return Fault(what, str(self._task_file), step, BATCH, "")
        where = f"{self._task_file}, {call.name}, {rows_at(call.place, asked)}"
        return Fault(f"the call {what}", where, STEP, call.place, "")

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
