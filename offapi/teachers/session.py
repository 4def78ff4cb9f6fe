"""One labelling session with an endpoint: when requests are sent, and what happens without answers.

Retry libraries (tenacity) and provider SDKs count attempts; none holds back all requests when one
gets a Retry-After, or reserves the cost of every attempt in a budget before it is sent. One event
loop with a task for each request in progress, so nothing needs a lock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from offapi.errors import OffapiError, TeacherError
from offapi.teachers.budget import Budget
from offapi.teachers.chat_completions import Reply
from offapi.teachers.connection import PATH, Connection
from offapi.teachers.failures import failure_step
from offapi.teachers.request_options import RequestOptions
from offapi.teachers.teacher import Answered, Request, Usage

# Not counting those that found the server busy; at least 15 seconds in all.
ATTEMPTS = 6
BACKOFF = 0.5  # seconds before the second attempt; doubles
LONGEST_BACKOFF = 30.0  # seconds
LONGEST_WAIT = 600.0  # seconds a document may be delayed, or a server may ask for at once
SILENT = 3  # documents in a row without an answer that end the session

UnderWay = set[asyncio.Task[Answered | None]]


class Session:
    """Requests sent over one connection, within one budget.

    `say` gets a sentence when a server asks to wait, or refuses the schema in `options`.
    """

    def __init__(
        self,
        connection: Connection,
        budget: Budget,
        requests: Sequence[Request],
        concurrency: int,
        say: Callable[[str], None],
        options: Mapping[str, Any],
    ) -> None:
        self.connection, self.budget = connection, budget
        self.waiting = deque(requests)
        self.concurrency, self.say = concurrency, say
        values = {"max_tokens": budget.max_tokens, "temperature": 0, **options}
        self.options = RequestOptions(values, say)
        self.ended: OffapiError | None = None
        self.end = asyncio.Event()
        self.not_before = 0.0  # monotonic seconds
        self.silent = 0

    def run(self, runner: asyncio.Runner) -> Generator[Answered, None, None]:
        """Yield answers as they come; see `Endpoint.answers`."""
        under_way: UnderWay = set()
        try:
            while under_way := self._fill(under_way, runner):
                done, under_way = runner.run(_first(under_way))
                yield from (answered for task in done if (answered := task.result()))
        except KeyboardInterrupt:
            finished = [
                task
                for task in under_way
                if task.done() and not task.cancelled() and not task.exception()
            ]
            yield from (answered for task in finished if (answered := task.result()))
            raise
        finally:
            runner.run(self.connection.close())
        if self.waiting and self.ended is None:
            self.ended = self.budget.exhausted()
        if self.ended:
            raise self.ended

    def _fill(self, under_way: UnderWay, runner: asyncio.Runner) -> UnderWay:
        """Return `under_way` and as many more requests as may be sent now."""
        tasks = set(under_way)
        while self.waiting and self.ended is None and len(tasks) < self.concurrency:
            bound = self.budget.bound(self.waiting[0])
            if not self.budget.affordable(bound):
                break
            self.budget.reserved += bound
            tasks.add(runner.get_loop().create_task(self._ask(self.waiting.popleft(), bound)))
        return tasks

    async def _ask(self, request: Request, bound: float) -> Answered | None:
        """Return the answer, or None when the session ended before there was one."""
        try:
            return await self._attempts(request, bound)
        except OffapiError as error:
            self._stop(error)
            return None
        finally:
            self.budget.reserved -= bound

    async def _attempts(self, request: Request, bound: float) -> Answered | None:
        attempts, delay, patience = 0, BACKOFF, time.monotonic() + LONGEST_WAIT
        while await self._turn():
            started = time.perf_counter()
            reply = await self.options.post(self.connection, request)
            seconds = time.perf_counter() - started
            self.budget.settle(reply.usage, bound)
            if not reply.again:
                self._count(reply, heard=reply.status < 400)
                usage, calls = reply.usage or Usage(), reply.calls
                return Answered(request.id, reply.output, reply.reason, usage, seconds, calls)
            busy = reply.wait is not None or reply.status == 429  # not a failure
            attempts += not busy or time.monotonic() > patience
            if attempts == ATTEMPTS:
                self._count(reply, heard=False)
                return Answered(request.id, "", f"{reply.reason} ({ATTEMPTS} attempts)")
            if not self.budget.affordable(0.0):
                raise self.budget.exhausted()
            await self._wait(reply, delay)
            delay = min(delay * 2, LONGEST_BACKOFF)
        return None

    def _count(self, reply: Reply, heard: bool) -> None:
        """End the session when several documents in a row got no answer."""
        self.silent = 0 if heard else self.silent + 1
        if self.silent >= SILENT:
            what = f"{SILENT} documents in a row got no answer ({reply.reason})."
            address = self.connection.url.removesuffix(PATH)
            hint = failure_step(reply.reason, address, self.budget.max_tokens)
            self._stop(TeacherError(what, next_step=hint))

    async def _wait(self, reply: Reply, backoff: float) -> None:
        """Wait before another attempt.

        When one request must wait, all wait: the limit is the account's.
        """
        if reply.wait is None:
            await self._pause(backoff * random.uniform(1.0, 1.5))
            return
        if reply.wait > LONGEST_WAIT:
            hint = "Run the same command again later to resume."
            raise TeacherError(
                f"the teacher asks to wait {reply.wait:.0f} s ({reply.reason}).", next_step=hint
            )
        until = time.monotonic() + max(reply.wait, BACKOFF)
        if until > self.not_before + 1:
            self.say(f"The teacher asks to wait {reply.wait:.0f} s ({reply.reason}).")
        self.not_before = max(self.not_before, until)

    async def _turn(self) -> bool:
        """Wait until requests may be sent; return False when the session ended meanwhile."""
        while self.ended is None and (wait := self.not_before - time.monotonic()) > 0:
            await self._pause(wait + random.uniform(0.0, 0.1))
        return self.ended is None

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.end.wait(), seconds)
        except TimeoutError:
            return

    def _stop(self, error: OffapiError) -> None:
        self.ended = self.ended or error
        self.end.set()


async def _first(tasks: UnderWay) -> tuple[UnderWay, UnderWay]:
    return await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
