"""Several helper processes that answer one stream of jobs, in the order of the jobs.

A process that dies or hangs is replaced, and the new one gets its jobs. The backlog is bounded,
and no process outlives the generator. Left out: more than one machine.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import Any

from offapi.errors import OffapiError
from offapi.workers.supervised import POLL, AnswerT, Ended, JobT, Prepare, Supervised

PROCESSES = 2
BACKLOG = 8  # jobs handed out, answered ones included, per job that a process may have


@dataclass(eq=False)
class _HandedOut:
    """A job that was handed out, and its answer once there is one."""

    job: Any
    answer: Any = None


@dataclass(frozen=True)
class _Member:
    """A process and its jobs, the oldest first."""

    process: Supervised[Any, Any]
    jobs: deque[_HandedOut] = field(default_factory=deque)


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

    `prepare` and `settings` are as in `Supervised`; an answer must not be None. If a process dies,
    or one turn takes more than `seconds`, `blame` returns the job to try instead of its oldest one,
    or raises. `ahead` is the number of jobs a process has at a time, so that it need not wait; it
    must be 1 if jobs or answers exceed a pipe's buffer, which would block both ends.
    """
    first = list(islice(jobs, PROCESSES))  # a short file needs only one process
    jobs = chain(first, jobs)
    members: list[_Member] = []
    order: deque[_HandedOut] = deque()
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
    jobs: Iterator[Any], members: Sequence[_Member], order: deque[_HandedOut], ahead: int
) -> None:
    """Keep every process busy, but hold no more answers than fit into memory."""
    while members and len(order) < BACKLOG * ahead:
        member = min(members, key=lambda each: len(each.jobs))
        if len(member.jobs) == ahead or (job := next(jobs, None)) is None:
            return
        handed_out = _HandedOut(job)
        order.append(handed_out)
        member.jobs.append(handed_out)
        member.process.send(job)


def _collect(
    members: Sequence[_Member], blame: Callable[[Any, Ended], Any], seconds: float | None
) -> None:
    """Wait briefly for answers; replace processes that died or hang."""
    busy = [member for member in members if member.jobs]
    ready = wait([member.process.pipe for member in busy], timeout=POLL)
    for member in busy:
        process = member.process
        answer = process.take() if process.pipe in ready else process.end_if_stuck(seconds)
        if isinstance(answer, Ended):
            member.jobs[0].job = blame(member.jobs[0].job, answer)
            process.restart()
            for waiting in member.jobs:
                process.send(waiting.job)
        elif answer is not None:
            member.jobs.popleft().answer = answer


def collect_garbage_rarely() -> None:
    """Collect garbage rarely: rows make no cycles, and the usual pace costs a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
