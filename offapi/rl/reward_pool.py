"""Rewards of fresh completions, computed in other processes while the next ones are decoded.

None of the user's code runs in the trainer, and no call can hold it up: a process that spends too
long in one call is ended, whatever code it is in. A faulty reward never counts as a reward: it
stops the run, and the completions it was asked about are stored. Left out: retrying a call.
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
from offapi.text.display import plural
from offapi.workers.supervised import POLL, Ended, Supervised

__all__ = ["Asked", "Judged", "Rewards", "rewarded"]

_Process = Supervised[Sequence[Asked], list[Judged] | Fault]
_Failure = Fault | OffapiError

STEP = "Fix it, or allow a call more time (`reward_seconds`). A check must end for every answer."


class Rewards:
    """The rewarding processes of the task in `task_file`, while the context lasts.

    `seconds` is how long one call of a check, or of the task's `reward`, may take. `kept` is the
    file for the completions that stopped the run. Enter the context in a thread that outlives it.
    """

    def __init__(
        self, task_file: Path, workers: int, seconds: float, kept: Path, *, gold: bool = False
    ) -> None:
        self._task_file, self._workers, self._gold = task_file, workers, gold
        self._seconds, self._kept = seconds, kept
        self._failure: OffapiError | None = None
        self._lock = Lock()
        self._closed = False

    def __enter__(self) -> Rewards:
        self._processes: list[_Process] = []
        try:
            for _ in range(self._workers):
                self._processes.append(Supervised(judging, (self._task_file, self._gold)))
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
        """Start judging a batch in one process and return at once.

        Batches spread over the processes. The result is in the batch's order. It raises ConfigError
        where the user's code raised, returned too few rewards or one that is not a finite number or
        None, took too long or ended its process; all results after it then raise the same.
        """
        return self._threads.submit(self._judge, tuple(asked))

    def not_deterministic(self, asked: Sequence[Asked], judged: Sequence[Judged]) -> list[str]:
        """Return the rows of `asked` whose reward differs from `judged` when judged again."""
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
        """Return what `process` makes of a batch, or the call at which it hung or ended."""
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
            what = f"the task file, on loading or in the background, {what}"
            step = "See what the file does when it is loaded, and what it leaves running."
            return Fault(what, str(self._task_file), step, BATCH, "")
        where = f"{self._task_file}, {call.name}, {rows_at(call.place, asked)}"
        return Fault(f"the call {what}", where, STEP, call.place, "")

    def _stop(self, fault: Fault, asked: tuple[Asked, ...]) -> ConfigError:
        """Store the completions at fault and return the error that ends the run."""
        blamed = asked if fault.index == BATCH else (asked[fault.index],)
        asked_rows = [asdict(one) for one in blamed]
        record = {"what": fault.what, "where": fault.where, "asked": asked_rows}
        text = json.dumps(
            {**record, "traceback": fault.traceback}, ensure_ascii=False, indent=1, default=str
        )
        completions = "completion" if len(blamed) == 1 else plural(len(blamed), "completion")
        try:
            # a lone surrogate becomes JSON's escape
            atomic.write_file(self._kept, text.encode("utf-8", "backslashreplace"))
            kept = f"The {completions} and the traceback are in {self._kept}."
        except RunError as error:
            kept = f"The {completions} and the traceback are not kept ({error.what})."
        return ConfigError(fault.what, where=fault.where, next_step=f"{fault.next_step} {kept}")
