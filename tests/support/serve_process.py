"""`offapi serve` as a process of its own, on a free port, until the block is left.

Left out: what is asked of it.
"""

from __future__ import annotations

import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson

# The command with other limits than its own, which no option sets.
WITH_LIMITS = """
import dataclasses, json, sys
from offapi.serve import limits
given = dataclasses.asdict(limits.ServerLimits(**json.loads(sys.argv.pop(1))))
limits.ServerLimits.__init__.__defaults__ = tuple(given.values())
from offapi.cli import main
main()
"""
_READY = re.compile(r"Serving on http://(\S+):(\d+)/v1")
PATIENCE = 60.0  # seconds


@dataclass
class ServeProcess:
    """A server that runs. `log` has the lines of its stderr so far."""

    process: subprocess.Popen[str]
    host: str = ""
    port: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://{self.host}:{self.port}/v1"

    def client(self, **options: Any) -> httpx2.Client:
        """Return a client of the server's root."""
        root = self.url.removesuffix("/v1")
        return httpx2.Client(base_url=root, trust_env=False, timeout=PATIENCE, **options)

    def connect(self) -> socket.socket:
        """Return a connection to the server."""
        return socket.create_connection((self.host.strip("[]"), self.port), timeout=PATIENCE)

    def send(self, raw: bytes) -> tuple[int, bytes, bytes]:
        """Send these bytes over a connection of their own; return status, headers and body."""
        with self.connect() as connection:
            connection.sendall(raw)
            return read_answer(connection)

    def metric(self, name: str) -> float:
        """Return the value of one line of /metrics."""
        with self.client() as client:
            text = client.get("/metrics").text
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def wait_for(self, name: str, value: float, seconds: float = 10.0) -> None:
        """Wait until a metric has this value."""
        end = time.monotonic() + seconds
        while self.metric(name) != value:
            if time.monotonic() > end:
                raise AssertionError(f"{name} is {self.metric(name)}, not {value}")
            time.sleep(0.01)

    def end(self, signal: int, seconds: float = PATIENCE) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(signal)
        return self.process.wait(seconds)


@contextmanager
def serving(
    *arguments: str,
    limits: Mapping[str, float] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServeProcess]:
    """Run `offapi serve ARGUMENTS --port 0` in the block; it is killed if it still runs after it."""
    command: Sequence[str] = [str(Path(sys.executable).with_name("offapi"))]
    if limits is not None:
        command = [sys.executable, "-c", WITH_LIMITS, orjson.dumps(limits).decode()]
    process = subprocess.Popen(
        [*command, "serve", *arguments, "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    server = ServeProcess(process)
    ready: queue.Queue[re.Match[str] | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(server, ready), daemon=True)
    reader.start()
    try:
        found = ready.get(timeout=PATIENCE)
        if found is None:
            raise AssertionError("".join(server.log))
        server.host, server.port = found[1], int(found[2])
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()


def read_answer(connection: socket.socket, raw: bytes = b"") -> tuple[int, bytes, bytes]:
    """Return status, headers and body of the next answer, of which `raw` was read before.

    An answer without a length ends with the connection. Status 0 means that none came.
    """
    with suppress(ConnectionError):
        while not _whole(raw) and (data := connection.recv(65536)):
            raw = re.sub(rb"^HTTP/1.1 100 [^\r]*\r\n\r\n", b"", raw + data)
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head, body


def _whole(raw: bytes) -> bool:
    head, _, body = raw.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    return length is not None and len(body) >= int(length[1])


def _read(server: ServeProcess, ready: queue.Queue[re.Match[str] | None]) -> None:
    assert server.process.stderr is not None
    with server.process.stderr as lines:
        for line in lines:
            server.log.append(line)
            if found := _READY.search(line):
                ready.put(found)
    ready.put(None)
