"""The grading processes: jobs in, results out in the
same order, and no check that hangs or dies stops them.

A check cannot be stopped from within its process while it is in a library's C code, so the
process is ended and a new one goes on without that row. Left out: more than one machine.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from multiprocessing.connection import wait

from offapi.errors import OffapiError, RunError
from offapi.grading.file import worker
from offapi.grading.file.worker import IDLE, Done, Job, Settings
from offapi.network.helper_log import Journal
from offapi.workers import spawn

PROCESSES = 2
GRACE = 5.0  # seconds beyond the task's `check_seconds`, which a check in C code does not hear
AHEAD = 2  # jobs a process has, so that it never waits for the next
WINDOW = 16  # jobs given out, answers that wait for an older one among them
POLL = 0.5  # seconds


def grade(
    jobs: Iterator[Job], settings: Settings, checks: Sequence[str], seconds: float | None
) -> Iterator[Done]:
    """Each job's result, in order; a row may take `seconds`, None: for ever.

    Raises what a job met: DataError for a row that is no trace.
    """
    first = list(islice(jobs, PROCESSES))  # a short file needs but one process
    jobs = chain(first, jobs)
    processes: list[_Process] = []
    order: deque[Job] = deque()  # given out, the oldest first
    answers: dict[int, Done | OffapiError] = {}
    try:
        processes += [_Process(settings, checks, seconds) for _ in first]
        while True:
            _give_out(jobs, processes, order)
            if not order:
                return
            while order and order[0].start in answers:
                answer = answers.pop(order.popleft().start)
                if isinstance(answer, OffapiError):
                    raise answer
                yield answer
            if order:
                _collect(processes, answers)
    finally:
        for process in processes:
            process.end()


def _give_out(jobs: Iterator[Job], processes: Sequence[_Process], order: deque[Job]) -> None:
    """Let every process have enough to do, but hold no more answers than fit in memory."""
    while processes and len(order) < WINDOW:
        process = min(processes, key=lambda each: len(each.jobs))
        if len(process.jobs) == AHEAD or (job := next(jobs, None)) is None:
            return
        order.append(job)
        process.give(job)


def _collect(processes: Sequence[_Process], answers: dict[int, Done | OffapiError]) -> None:
    """Wait a moment for answers; look after processes that died or hang."""
    busy = [process for process in processes if process.jobs]
    ready = wait([process.pipe for process in busy], timeout=POLL)
    for process in busy:
        if process.pipe in ready:
            answer = process.take()
            if answer is not None:
                answers[answer[0]] = answer[1]
        elif process.hangs():
            process.restart(
                f"took more than {process.seconds:g} s, heard no alarm and was ended with its"
                " process."
            )


class _Process:
    """One process, the jobs it has, and how long it has been at the same row."""

    def __init__(self, settings: Settings, checks: Sequence[str], seconds: float | None) -> None:
        self._settings, self._checks, self.seconds = settings, checks, seconds
        self._context = mp.get_context("spawn")
        self.jobs: deque[Job] = deque()
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = self._context.Pipe()
        self._marker = self._context.RawArray("q", [IDLE, 0])
        self._journal = Journal()
        arguments = (theirs, self._marker, self._settings, self._journal)
        self._process = self._context.Process(target=worker.serve, args=arguments, daemon=True)
        spawn.start(self._process, signal.SIGINT)  # we end it ourselves
        theirs.close()
        self._row, self._spent, self._looked = IDLE, 0.0, time.monotonic()

    def give(self, job: Job) -> None:
        self.jobs.append(job)
        self._send(job)

    def _send(self, job: Job) -> None:
        with suppress(
            BrokenPipeError, ConnectionResetError
        ):  # it died: `take` finds out and gives the job anew
            self.pipe.send(job)

    def take(self) -> tuple[int, Done | OffapiError] | None:
        """The answer to the oldest job; None when the
        process died instead, and another was started.
        """
        try:
            answer: Done | OffapiError = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            self.restart(f"ended the process ({_ending(self._process.exitcode)}).")
            return None
        return self.jobs.popleft().start, answer

    def hangs(self) -> bool:
        """Whether it has been at one row for too long.

        A suspended machine or command does not count.
        """
        row, now = int(self._marker[0]), time.monotonic()
        self._spent = (
            self._spent + min(now - self._looked, 2 * POLL) if row == self._row != IDLE else 0.0
        )
        self._row, self._looked = row, now
        return self.seconds is not None and self._spent > self.seconds

    def restart(self, why: str) -> None:
        """Go on in a new process, without the row under way, of which `why` is said."""
        row, check = int(self._marker[0]), self._checks[int(self._marker[1])]
        self.end()
        if row == IDLE:
            step = (
                "Run it again with OFFAPI_DEBUG=1, and see what the task file does when it is"
                " loaded."
            )
            raise RunError(
                f"a grading process {why}", where=str(self._settings.task_file), next_step=step
            )
        broken = {**self.jobs[0].broken, row: f"check {check!r} {why}"}
        self.jobs[0] = replace(self.jobs[0], broken=broken)
        self._start()
        for job in self.jobs:
            self._send(job)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()
        self._journal.close()


def _ending(code: int | None) -> str:
    return (
        f"signal {signal.Signals(-code).name}"
        if code is not None and code < 0
        else f"exit code {code}"
    )
