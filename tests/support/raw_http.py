"""HTTP over a bare socket: requests that no client would send, and answers as they come."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable
from contextlib import suppress

from serving import Served

PATIENCE = 60.0  # seconds


OPENED: list[socket.socket] = []  # a test's connections, which `close_all` ends


def connect(served: Served, received: int | None = None) -> socket.socket:
    """Return a connection whose system keeps `received` bytes that were not read."""
    connection = socket.socket()
    OPENED.append(connection)
    connection.settimeout(PATIENCE)
    if received is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    connection.connect(("127.0.0.1", served.port))
    return connection


def close_all() -> None:
    """Close the connections of a test that has ended, or failed."""
    while OPENED:
        OPENED.pop().close()


def send(served: Served, request: bytes) -> tuple[int, bytes, bytes]:
    """Send a request over a connection of its own; return status, headers and body."""
    with connect(served) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        return read_answer(connection)


def sent_until_cut(connection: socket.socket, pieces: Iterable[bytes]) -> int:
    """Send until the server cuts the connection; return how many pieces that took."""
    at = -1
    for at, piece in enumerate(pieces):
        try:
            connection.sendall(piece)
        except ConnectionError:
            return at
    return at + 1


def read_answer(connection: socket.socket, raw: bytes = b"") -> tuple[int, bytes, bytes]:
    """Return status, headers and body of the next answer, of which `raw` was read before.

    An answer without a length ends with the connection. Status 0 means that none came.
    """
    with suppress(ConnectionError):
        while not _whole(raw) and (data := connection.recv(65536)):
            raw = re.sub(rb"^HTTP/1.1 100 [^\r]*\r\n\r\n", b"", raw + data)
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head, body


def wait_for(served: Served, name: str, value: float, seconds: float = 10.0) -> None:
    """Wait until a metric has this value."""
    end = time.monotonic() + seconds
    while (now := served.metric(name)) != value:
        assert time.monotonic() < end, f"{name} is {now}, not {value}"
        time.sleep(0.01)


def _whole(raw: bytes) -> bool:
    head, _, body = raw.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    if length is None:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(length[1])
