"""A teacher behind any OpenAI-compatible address: concurrent, patient, and within its cost limit.

It runs one event loop with a task for each request, so it cannot be called inside another loop.
Left out: proxies, redirects and streaming; the network guard opens for the one host and port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from offapi.errors import ConfigError
from offapi.network.guard import allow
from offapi.progress import say_nothing
from offapi.teachers import terms
from offapi.teachers.address import host_of, port_of, read_address, refuse_plain_key
from offapi.teachers.budget import Budget
from offapi.teachers.chat_completions import schema_option
from offapi.teachers.connection import Connection
from offapi.teachers.session import Session
from offapi.teachers.teacher import Answered, Price, Request


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, how fast, and at what cost. Raise ConfigError for what cannot be asked.

    A teacher that is not on this machine or network needs `terms_checked`. `key` is sent as bearer
    token and appears nowhere else. `say` gets a sentence when a server asks to wait.
    """

    url: str  # base, such as http://127.0.0.1:8080/v1
    max_tokens: int  # of an answer
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    concurrency: int = 4  # requests in progress
    timeout: float = 120.0  # seconds for one attempt
    price: Price | None = None
    max_cost: float | None = None  # dollars, including `paid`
    paid: float = 0.0  # dollars spent by earlier calls
    terms_checked: bool = False
    schema: Mapping[str, Any] | None = None  # of the answers, for servers that take one
    say: Callable[[str], None] = say_nothing

    def __post_init__(self) -> None:
        terms.require(self.host, self.terms_checked)
        refuse_plain_key(self.address, self.key, "--teacher")
        if self.concurrency < 1 or not self.timeout > 0:
            raise ConfigError(
                "--concurrency must be at least 1 and --timeout above 0 seconds, got"
                f" {self.concurrency} and {self.timeout:g}."
            )
        if self.max_cost is not None and (self.price is None or not self.max_cost >= 0):
            hint = "Add --price-in and --price-out, in dollars per million tokens."
            raise ConfigError(
                "--max-cost must be a number of dollars, and prices must be given.", next_step=hint
            )

    @property
    def address(self) -> httpx2.URL:
        """The base URL as the client reads it; ConfigError when it is not a URL."""
        return read_address(self.url, "--teacher", "--api-key-env")

    @property
    def host(self) -> str:
        """The host as it will be looked up and connected to."""
        return host_of(self.address)

    @property
    def port(self) -> int:
        """The port of the address."""
        return port_of(self.address)

    @property
    def name(self) -> str:
        """Address and model, as the labels file records them."""
        return self.url.rstrip("/") + (f"#{self.model}" if self.model else "")

    def connect(self) -> tuple[Connection, Budget]:
        """Return a client, which is to be closed, and the budget for its requests."""
        connection = Connection(self.url, self.model, self.key, self.timeout, self.concurrency)
        return connection, Budget(self.price or Price(), self.max_cost, self.max_tokens, self.paid)

    def answers(self, requests: Sequence[Request]) -> Generator[Answered, None, None]:
        """Send all requests, `concurrency` at a time, and yield the answers.

        End with TeacherError when the server is gone or refuses every request, with GateFailed
        before `max_cost` could be exceeded; requests in progress are finished and yielded first.
        """
        with allow(self.host, self.port), asyncio.Runner() as runner:
            connection, budget = self.connect()
            options = schema_option(self.schema) if self.schema else {}
            session = Session(connection, budget, requests, self.concurrency, self.say, options)
            yield from session.run(runner)
