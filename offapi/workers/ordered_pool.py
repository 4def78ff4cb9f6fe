"""Several helper processes at one stream of jobs: answers in the order of the jobs.

A process that dies or hangs is replaced, and its jobs are given to the new one. The backlog is
bounded, and no process outlives the generator. Left out: more than one machine.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import Any, Generic

from offapi.errors import OffapiError
from offapi.workers.supervised import POLL, AnswerT, Ended, JobT, Prepare, Supervised

PROCESSES = 2
BACKLOG = 8  # jobs given out for each that a process may have, the answered ones among them


@dataclass(eq=False)
class _Given(Generic[JobT, AnswerT]):
    """A job given out, and its answer once it is there."""

    job: JobT
    answer: AnswerT | OffapiError | None = None


@dataclass(frozen=True)
class _Member(Generic[JobT, AnswerT]):
    """A process and the jobs it has, the oldest first."""

    process: Supervised[JobT, AnswerT]
    jobs: deque[_Given[JobT, AnswerT]] = field(default_factory=deque)


def answer_in_order(
    jobs: Iterator[JobT],
    prepare: Prepare[JobT, AnswerT],
    settings: Any,
    blame: Callable[[JobT, Ended], JobT],
    *,
    seconds: float | None = None,
    ahead: int = 1,
) -> Iterator[tuple[JobT, AnswerT]]:
    """Yield each job with its answer, in order; raise the OffapiError that answers a job.

    `prepare` and `settings` are as in `Supervised`. When a process dies, or is at one turn for more
    than `seconds`, `blame` returns what to try in place of its oldest job, or raises. `ahead`: jobs
    a process has at a time, so that it does not wait for the next; 1 where jobs or answers exceed a
    pipe's buffer, which both ends would fill and wait.
    """
    first = list(islice(jobs, PROCESSES))  # a short file needs but one process
    jobs = chain(first, jobs)
    members: list[_Member[JobT, AnswerT]] = []
    order: deque[_Given[JobT, AnswerT]] = deque()
    try:
        for _ in first:
            members.append(_Member(Supervised(prepare, settings)))
        while True:
            _give_out(jobs, members, order, ahead)
            if not order:
                return
            while order and (answer := order[0].answer) is not None:
                if isinstance(answer, OffapiError):
                    raise answer
                yield order.popleft().job, answer
            if order:
                _collect(members, blame, seconds)
    finally:
        for member in members:
            member.process.end()


def _give_out(
    jobs: Iterator[JobT],
    members: Sequence[_Member[JobT, AnswerT]],
    order: deque[_Given[JobT, AnswerT]],
    ahead: int,
) -> None:
    """Give every process enough to do, but hold no more answers than fit in memory."""
    while members and len(order) < BACKLOG * ahead:
        member = min(members, key=lambda each: len(each.jobs))
        if len(member.jobs) == ahead or (job := next(jobs, None)) is None:
            return
        given: _Given[JobT, AnswerT] = _Given(job)
        order.append(given)
        member.jobs.append(given)
        member.process.send(job)


def _collect(
    members: Sequence[_Member[JobT, AnswerT]],
    blame: Callable[[JobT, Ended], JobT],
    seconds: float | None,
) -> None:
    """Wait a moment for answers; replace processes that died or hang."""
    busy = [member for member in members if member.jobs]
    ready = wait([member.process.pipe for member in busy], timeout=POLL)
    for member in busy:
        if member.process.pipe in ready:
            answer = member.process.take()
        elif (stuck := member.process.end_if_stuck(seconds)) is not None:
            answer = stuck
        else:
            continue
        if isinstance(answer, Ended):
            _replace(member, blame(member.jobs[0].job, answer))
        else:
            member.jobs.popleft().answer = answer


def _replace(member: _Member[JobT, AnswerT], instead: JobT) -> None:
    """Start a new process with all jobs of the one that ended, the oldest as `instead`."""
    member.jobs[0].job = instead
    member.process.restart()
    for given in member.jobs:
        member.process.send(given.job)


def collect_garbage_rarely() -> None:
    """Look for cycles seldom: rows make none, and Python's usual pace costs a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
