"""A teacher behind any OpenAI-compatible address: concurrent, patient, and within its cost limit.

It runs one event loop with a task for each request, so it cannot be called inside another loop.
Left out: proxies, redirects and streaming; the network guard opens for the one host and port.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from offapi.errors import ConfigError
from offapi.network.addresses import on_this_network
from offapi.network.guard import allow
from offapi.progress import say_nothing
from offapi.teachers import terms
from offapi.teachers.budget import Budget
from offapi.teachers.chat_completions import schema_option
from offapi.teachers.connection import Connection
from offapi.teachers.session import Session
from offapi.teachers.teacher import Answered, Price, Request

PORTS = {"http": 80, "https": 443}


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
        if self.key and self.address.scheme == "http" and not on_this_network(self.host):
            raise ConfigError(
                "the key would cross the internet unencrypted.",
                next_step="Use https:// in --teacher.",
            )
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
        hint = "Write it as http://HOST:PORT/v1."
        try:
            url = httpx2.URL(self.url)
        except (httpx2.InvalidURL, ValueError) as error:
            raise ConfigError(
                f"the address is not a URL: {error}.", where="--teacher", next_step=hint
            ) from None
        if url.scheme not in PORTS or not url.host or not 0 < _port(url) < 65536:
            raise ConfigError(
                "the address has no host or an impossible port.",
                where="--teacher",
                next_step=hint,
            )
        if url.userinfo:
            hint = "Put the key into an environment variable and name that in --api-key-env."
            raise ConfigError(
                "a name or password in the address would be logged.",
                where="--teacher",
                next_step=hint,
            )
        if url.query or url.fragment:
            raise ConfigError(
                "the address must not have a ? or # part.", where="--teacher", next_step=hint
            )
        return url

    @property
    def host(self) -> str:
        """The host as it will be looked up and connected to."""
        return self.address.raw_host.decode()

    @property
    def port(self) -> int:
        """The port of the address."""
        return _port(self.address)

    @property
    def name(self) -> str:
        """Address and model, as the labels file records them."""
        return self.url.rstrip("/") + (f"#{self.model}" if self.model else "")

    def answers(self, requests: Sequence[Request]) -> Generator[Answered, None, None]:
        """Send all requests, `concurrency` at a time, and yield the answers.

        End with TeacherError when the server is gone or refuses every request, with GateFailed
        before `max_cost` could be exceeded; requests in progress are finished and yielded first.
        """
        with allow(self.host, self.port), asyncio.Runner() as runner:
            connection = Connection(self.url, self.model, self.key, self.timeout, self.concurrency)
            budget = Budget(self.price or Price(), self.max_cost, self.max_tokens, self.paid)
            options = schema_option(self.schema) if self.schema else {}
            session = Session(connection, budget, requests, self.concurrency, self.say, options)
            yield from session.run(runner)


def _port(url: httpx2.URL) -> int:
    return PORTS[url.scheme] if url.port is None else url.port


def api_key_from(variable: str | None) -> str | None:
    """Return the API key in the environment variable of that name.

    Raise ConfigError when it is missing or cannot be a header.
    """
    if variable is None:
        return None
    if not variable.isidentifier():
        raise ConfigError(
            "the value is not the name of a variable; do not paste the key itself.",
            where="--api-key-env",
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {variable!r} is not set.", where="--api-key-env"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"the value of {variable!r} cannot be an API key.", where="--api-key-env")
    return key
