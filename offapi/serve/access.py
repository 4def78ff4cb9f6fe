"""Who may ask, and how much they may send: checked before an endpoint sees a request.

A web page that the user visits must not reach the server: its requests name another host (DNS
rebinding), have an origin, or cannot have the content type. Left out: what is inside a body, and
slow or broken connections (`offapi.serve.protocol`).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offapi.network.addresses import on_this_machine
from offapi.serve.errors import ApiError
from offapi.serve.limits import ServerLimits
from offapi.text.display import plural

LOG = logging.getLogger("offapi.serve")
OPEN_PATHS = frozenset(("/health",))  # these need no key
FILES_PATH = "/v1/files"
DRAIN_SECONDS = 1.0  # how long the rest of a refused body is read, so that the client sees why
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]@/?#\s]+)(:[0-9]{0,5})?")


@dataclass(frozen=True)
class AccessRules:
    """The address that the server listens at, the names it goes by, and the key it asks for.

    `key` None asks for no key, which only a server on a loopback address may do.
    """

    host: str = "127.0.0.1"
    names: frozenset[str] = frozenset()
    key: str | None = field(default=None, repr=False)

    def knows_host(self, header: str) -> bool:
        """Return whether a Host header names this server, at whatever port.

        An address cannot be rebound to another machine as a name can, so that a server which
        listens beyond loopback answers to any.
        """
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match[1].lower()
        if on_this_machine(name) or name.strip("[]") in {self.host.lower(), *self.names}:
            return True
        return not on_this_machine(self.host) and _is_address(name)

    def has_key(self, authorization: str) -> bool:
        """Return whether an Authorization header has the key, compared in constant time."""
        scheme, _, given = authorization.partition(" ")
        wanted = (self.key or "").encode()
        same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), wanted)
        return same and scheme.lower() == "bearer" and bool(wanted)


class Access:
    """The application `app` behind the checks; `draining` says that no new work is taken."""

    def __init__(
        self,
        app: ASGIApp,
        rules: AccessRules,
        limits: ServerLimits,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app, self.rules, self.limits, self.draining = app, rules, limits, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not. What fails is logged without the request's text."""
        if scope["type"] != "http":
            return
        body = CappedBody(scope, receive, send, self._most(scope["path"]), self.limits)
        try:
            self._check(scope)
            await self.app(scope, body.receive, body.send)
        except ApiError as error:
            await error.response()(scope, body.receive, body.send)
        except ClientDisconnect:
            pass
        except Exception as error:
            LOG.error("a request failed: %s", place_of(error))

    def _check(self, scope: Scope) -> None:
        """Raise ApiError for a request that no endpoint may see."""
        headers = Headers(scope["headers"])
        self._check_sender(scope, headers)
        if self.draining() and scope["path"] not in OPEN_PATHS:
            raise ending()
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size + len(scope["raw_path"]) + len(scope["query_string"]) > self.limits.header_bytes:
            raise too_long_header(self.limits)
        if headers.one("transfer-encoding") and headers.one("content-length"):
            raise ApiError(400, "A body has a length or is chunked, not both.")
        if headers.one("content-encoding") not in ("", "identity"):
            raise ApiError(415, "Compressed bodies are not accepted.")
        if scope["method"] in ("POST", "PUT", "PATCH"):
            _check_content_type(scope["path"], headers.one("content-type"))
        most = self._most(scope["path"])
        if int(headers.one("content-length") or 0) > most:
            raise too_large(most)

    def _check_sender(self, scope: Scope, headers: Headers) -> None:
        """Raise ApiError for a request from a web page, or without the key."""
        if not self.rules.knows_host(headers.one("host")):
            message = (
                "The Host header is not a name of this server; start it with --allow-host NAME to"
                " add one."
            )
            raise ApiError(403, message, type="permission_error", code="host_not_allowed")
        if headers.one("origin"):
            message = "Requests from web pages are refused."
            raise ApiError(403, message, type="permission_error", code="origin_not_allowed")
        if self.rules.key is None or scope["path"] in OPEN_PATHS:
            return
        if not self.rules.has_key(headers.one("authorization")):
            message = "This server needs its key: Authorization: Bearer KEY."
            raise ApiError(401, message, type="authentication_error", code="invalid_api_key")

    def _most(self, path: str) -> int:
        return self.limits.file_bytes if path == FILES_PATH else self.limits.body_bytes


class Headers:
    """The headers of a request, which h11 has checked and written in lower case."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}

    def one(self, name: str) -> str:
        """Return the header's last value, or an empty text."""
        return self._values.get(name, "").strip()


class CappedBody:
    """A request's body of at most `most` bytes, which must not come too slowly."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, most: int, limits: ServerLimits
    ) -> None:
        headers = Headers(scope["headers"])
        self._receive, self._send, self._most, self._limits = receive, send, most, limits
        self._began, self._bytes = monotonic(), 0
        self._waits = bool(headers.one("expect"))  # the client sends no body before it may
        length = headers.one("transfer-encoding") or headers.one("content-length")
        self._whole = length in ("", "0")

    async def receive(self) -> Message:
        """Return the next event. Raise ApiError for a body too long (413) or too slow (408)."""
        if self._whole:
            return await self._receive()
        allowed = self._limits.body_seconds + self._bytes / self._limits.bytes_per_second
        self._waits = False
        try:
            async with asyncio.timeout(self._began + allowed - monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "The body came too slowly.", code="request_timeout") from None
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._bytes > self._most:
            raise too_large(self._most)
        return message

    async def send(self, message: Message) -> None:
        """Send an event of the answer; one that comes before the whole body ends the connection."""
        if message["type"] == "http.response.start" and not self._whole:
            await self._drain()
            if not self._whole:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await self._send(message)

    async def _drain(self) -> None:
        """Read what the client is still sending, for a moment, or it would not see the answer."""
        if self._waits:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while (await self._receive()).get("more_body"):
                    pass
            self._whole = True


def too_large(most: int) -> ApiError:
    """Return the error for a body above the limit."""
    return ApiError(
        413, f"The body has more than {plural(most, 'byte')}.", code="request_too_large"
    )


def too_long_header(limits: ServerLimits) -> ApiError:
    """Return the error for headers above the limit."""
    message = f"The headers have more than {plural(limits.header_bytes, 'byte')}."
    return ApiError(431, message, code="headers_too_large")


def ending() -> ApiError:
    """Return the error for a request that comes while the server ends."""
    message = "The server is ending."
    return ApiError(503, message, type="server_error", code="server_ending", retry_after=5)


def place_of(error: BaseException) -> str:
    """Write an error's type and places in the code; its message may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " < ".join(f"{each.filename}:{each.lineno} ({each.name})" for each in frames[::-1])
    return f"{type(error).__name__} at {places}"


def _check_content_type(path: str, given: str) -> None:
    """Raise ApiError (415) unless the type is one that a web page cannot send unasked."""
    kind, _, options = given.lower().partition(";")
    wanted = "multipart/form-data" if path == FILES_PATH else "application/json"
    charset = re.search(r"charset=\"?([^\s;\"]+)", options)
    if kind.strip() != wanted or (charset and charset[1] not in ("utf-8", "utf8")):
        raise ApiError(415, f"The Content-Type must be {wanted}.", code="unsupported_content_type")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
