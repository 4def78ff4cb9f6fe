"""Listen until a signal comes, then finish what is being answered.

The first SIGINT or SIGTERM closes the address and lets requests end within the grace time; the
second ends them at once. Left out: what is answered (`offapi.serve.app`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType

import uvicorn

from offapi.errors import ConfigError
from offapi.serve.access import Access, AccessRules, ending
from offapi.serve.app import build_app
from offapi.serve.metrics import CountedRequests
from offapi.serve.protocol import protocol_of
from offapi.serve.server import Server


def open_address(host: str, port: int) -> socket.socket:
    """Return a socket that listens at the address. Raise ConfigError for one it cannot have."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        step = "Choose another --port, or --port 0 for any that is free."
        raise ConfigError(
            f"cannot listen at {host}:{port}: {why}.", where="--port", next_step=step
        ) from None


def listen_until_signal(server: Server, listening: socket.socket, rules: AccessRules) -> None:
    """Answer requests at the address until a signal comes, and what they ask for is done."""
    # It logs exceptions with their messages, which may quote a request; `Access` logs their places.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    limits = server.limits
    checked = Access(build_app(server), rules, limits, lambda: server.draining)
    app = CountedRequests(checked, server.metrics)
    config = uvicorn.Config(
        app,
        http=protocol_of(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.keep_alive_seconds,
    )
    _Listener(config, server).run(sockets=[listening])


class _Listener(uvicorn.Server):
    """uvicorn's server, which would end by raising the signal again, and wait for every client."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self.server = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, or end at once. Called between any two operations of the main thread."""
        events = asyncio.get_running_loop()
        events.call_soon_threadsafe(self._abort if self.should_exit else self._drain)
        self.should_exit = self.server.draining = True

    def _drain(self) -> None:
        asyncio.get_running_loop().call_later(self.server.limits.grace_seconds, self._give_up)

    def _give_up(self) -> None:
        """Fail what is still being answered, then end those whose clients do not read that."""
        self.server.loop.fail(ending())
        asyncio.get_running_loop().call_later(1.0, self._abort)

    def _abort(self) -> None:
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()
