"""Escalation: an answer that is not sure enough is asked of a stronger endpoint.

It goes to one host alone, and nothing of it is logged but how often. Where the endpoint fails, the
model's own answer is served. Left out: whether an answer is sure enough
(`offapi.serve.acceptance`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from offapi.checks.schema import schema_validator
from offapi.errors import OffapiError
from offapi.network.guard import allow
from offapi.progress import say_nothing
from offapi.task import Task
from offapi.teachers.address import PORTS, host_of, port_of, read_address, refuse_plain_key
from offapi.teachers.chat_completions import Reply, schema_option
from offapi.teachers.connection import Connection
from offapi.teachers.request_options import RequestOptions
from offapi.teachers.teacher import Request
from offapi.text.display import plural

OPTION, KEY_OPTION = "--escalate", "--escalate-key-env"
SECONDS = 60.0  # for all of one escalation, its second attempt included
BACKOFF = 0.5  # seconds before the second attempt
LONGEST_WAIT = 5.0  # seconds; a server that asks to wait longer is not asked again


@dataclass(frozen=True)
class Escalated:
    """What became of an escalation: the endpoint's answer, or why it has none."""

    text: str | None
    member: Mapping[str, Any]  # the answer's `offapi.escalated`


class Escalation:
    """The stronger endpoint at the base `url`, used while `open`.

    `model` is the name it is asked for, `key` its bearer token, `seconds` the time for one
    document. Raise ConfigError for an address that cannot be asked.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        key: str | None = None,
        seconds: float = SECONDS,
        say: Callable[[str], None] = say_nothing,
    ) -> None:
        self._address = read_address(url, OPTION, KEY_OPTION)
        refuse_plain_key(self._address, key, OPTION)
        self.url, self.model, self._key, self._seconds = url, model, key, seconds
        self.counts: Counter[str] = Counter()  # answered, failed
        self._say = say
        self._options: dict[str, RequestOptions] = {}  # by the served model's name

    @property
    def to(self) -> str:
        """The host, with its port where it is not the usual one."""
        host, port = host_of(self._address), port_of(self._address)
        return host if port == PORTS[self._address.scheme] else f"{host}:{port}"

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let this process reach the endpoint's host and port, and no other, in the block."""
        with allow(host_of(self._address), port_of(self._address)):
            yield

    async def ask(self, served: str, task: Task, document: str, why: str) -> Escalated:
        """Ask about a document of the served model's task. A failure is data, with its reason."""
        options = self._options.get(served)
        if options is None:
            options = self._options[served] = self._options_of(task)
        messages = tuple(task.messages(document))
        try:
            async with asyncio.timeout(self._seconds):
                reply = await self._attempts(Request("", messages), options)
        except TimeoutError:
            reply = Reply(reason=f"timed out: no answer in {self._seconds:g} s")
        except OffapiError as error:
            reply = Reply(reason=error.what)
        text, failed = _read(task, reply)
        self.counts["answered" if failed is None else "failed"] += 1
        member = {"to": self.to, "model": self.model, "why": why, "failed": failed}
        return Escalated(text, member)

    def line(self) -> str:
        """Return a sentence on how often the endpoint was asked."""
        sent, failed = self.counts.total(), self.counts["failed"]
        unanswered = f", {failed} without an answer" if failed else ""
        return f"{plural(sent, 'document')} went to {self.to}{unanswered}."

    def _options_of(self, task: Task) -> RequestOptions:
        schema = schema_option(task.schema) if task.schema is not None else {}
        values = {"max_tokens": task.max_answer_tokens, "temperature": 0, **schema}
        return RequestOptions(values, self._say)

    async def _attempts(self, request: Request, options: RequestOptions) -> Reply:
        """Ask once, and once more where the same request may still get an answer soon."""
        connection = Connection(self.url, self.model, self._key, self._seconds, concurrency=1)
        try:
            reply = await options.post(connection, request)
            wait = BACKOFF if reply.wait is None else reply.wait
            if reply.again and wait <= LONGEST_WAIT:
                await asyncio.sleep(wait)
                reply = await options.post(connection, request)
            return reply
        finally:
            await connection.close()


def _read(task: Task, reply: Reply) -> tuple[str | None, str | None]:
    """Return the answer's text, or why it cannot stand for the model's own."""
    if reply.reason:
        return None, reply.reason
    answer = task.read_answer(reply.output)
    if task.schema is None:
        return (answer.text, None) if answer.text else (None, "empty answer")
    if answer.value is None:
        return None, f"no answer to the task: {answer.error}"
    if not schema_validator(task.schema).is_valid(answer.value):
        return None, "its answer does not fit the task's schema"
    return answer.text, None
