"""HTTP/1.1 over one connection, with an end to all that a client can drag out.

uvicorn's protocol waits forever for a header, and for a reader. Here both have a deadline, headers
have a cap, and what is refused is refused in OpenAI's shape. Left out: TLS, WebSockets, and what a
request may ask for (`offapi.serve.access`).
"""

from __future__ import annotations

import asyncio
import socket
import sys
from http import HTTPStatus
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from offapi.serve.access import too_long_header
from offapi.serve.errors import ApiError
from offapi.serve.limits import ServerLimits


class GuardedProtocol(H11Protocol):
    """One client's connection."""

    limits = ServerLimits()
    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # any byte the kernel does not take is waited for
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, self.limits.unread_bytes
        )
        if len(self.connections) > self.limits.connections:
            message = "The server has as many connections as it takes."
            self._refuse(ApiError(503, message, type="server_error", retry_after=1))
            return
        self._time_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free what waits for this client."""
        self._stop("_header_timer")
        self._stop("_write_timer")
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Read what came; a header that is incomplete must be whole soon."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._time_header()
        elif self.conn.their_state is not h11.IDLE:
            self._stop("_header_timer")
        self._watch_pipeline()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or a header above the cap."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(too_long_header(self.limits))
        else:
            self._refuse(ApiError(400, "This is not a valid HTTP request."))

    def pause_writing(self) -> None:
        """Let answers wait for a slow reader, for a while."""
        super().pause_writing()
        self._time_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Continue: the reader has taken all."""
        self._stop("_write_timer")
        super().resume_writing()

    def _watch_pipeline(self) -> None:
        """Keep reading while an answer is computed, or the end of the connection goes unseen."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return
        if len(self.conn.trailing_data[0]) > self.limits.header_bytes:
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def _time_header(self) -> None:
        if self._header_timer is None:
            late = ApiError(408, "The header came too slowly.", code="request_timeout")
            self._header_timer = self.loop.call_later(
                self.limits.header_seconds, self._refuse, late
            )

    def _time_writing(self, unsent: int) -> None:
        self._stop("_write_timer")
        self._write_timer = self.loop.call_later(
            self.limits.write_seconds, self._check_writing, unsent
        )

    def _check_writing(self, before: int) -> None:
        """End the connection of a reader that took too little since the last look."""
        left = self.transport.get_write_buffer_size()
        if before - left < self.limits.write_seconds * self.limits.bytes_per_second:
            self.transport.abort()
        else:
            self._time_writing(left)

    def _refuse(self, error: ApiError) -> None:
        """Send an error, unless an answer has begun, and end the connection."""
        self._stop("_header_timer")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = orjson.dumps(error.body())
            headers: list[tuple[str, str]] = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            if error.retry_after is not None:
                headers.append(("retry-after", str(error.retry_after)))
            phrase = HTTPStatus(error.status).phrase.encode()
            events = (
                h11.Response(status_code=error.status, headers=headers, reason=phrase),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(map(self._sent, events)))
        self.transport.close()

    def _sent(self, event: Any) -> bytes:
        return self.conn.send(event) or b""

    def _stop(self, timer: str) -> None:
        handle: asyncio.TimerHandle | None = getattr(self, timer)
        if handle is not None:
            handle.cancel()
            setattr(self, timer, None)


def protocol_of(limits: ServerLimits) -> type[GuardedProtocol]:
    """Return the protocol with these limits, as uvicorn takes it."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})
