"""Servers of chat completions as processes, and clients that ask all of them the same.

Left out: what is made of the times (`serve`, `serve_load`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson
import psutil

PATIENCE = 300.0  # seconds for loading a model, and for an answer
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FIRST = b'"delta":{"content"'  # in a stream of offapi's, where a text begins
Body = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """How a server is started on a port, and the name by which it knows the model."""

    command: tuple[str, ...]
    model: str
    python_path: str = ""


def arms_of(backend: str, folder: Path, peers: str) -> dict[str, Arm]:
    """Return offapi and the servers that it is compared with. `{port}` stands for the port."""
    offapi = str(Path(sys.executable).with_name("offapi"))
    ours = (offapi, "serve", f"m={folder}", "--backend", backend, "--port", "{port}")
    arms = {"offapi": Arm(ours, "m")}
    if backend == "mlx":
        # With offapi's fast BLAS for Linux, without which mlx_lm.server is some ten times slower.
        start = "import offapi.backends.mlx_backend; from mlx_lm.server import main; main()"
        peer = (sys.executable, "-c", start, "--model", str(folder), "--port", "{port}")
        return arms | {"mlx_lm.server": Arm(peer, "default_model")}
    start = "from transformers.cli.transformers import main; main()"
    peer = (sys.executable, "-c", start, "serve", str(folder), "--port", "{port}")
    settings = ("--dtype", "float32", "--device", "cpu")
    plain = Arm((*peer, *settings), str(folder), peers)
    batched = Arm((*peer, *settings, "--continuous-batching"), str(folder), peers)
    return arms | {"transformers": plain, "transformers batched": batched}


@contextmanager
def running(arm: Arm, threads: int) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server, wait until it answers, and yield its URL and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **dict.fromkeys(THREADS, str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": arm.python_path,
    }
    command = [part.format(port=port) for part in arm.command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, arm, process)
            yield url, psutil.Process(process.pid)
        except BaseException:
            log.seek(0)
            print(log.read()[-3000:].decode(errors="replace"), file=sys.stderr)
            raise
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, arm: Arm, process: subprocess.Popen[bytes]) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 0}
    end = time.monotonic() + PATIENCE
    while True:
        try:
            answer = httpx2.post(
                f"{url}/v1/chat/completions",
                json={**body, "model": arm.model},
                timeout=PATIENCE,
                trust_env=False,
            )
            answer.raise_for_status()
            return
        except httpx2.TransportError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.2)


def questions(first: int, count: int) -> list[list[dict[str, str]]]:
    """Return the demo task's messages for `count` of its documents."""
    from offapi.demo.generate import generate
    from offapi.demo.task import INSTRUCTIONS

    return [
        [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": row.text}]
        for row in generate("train", first + count)[first:]
    ]


@dataclass(frozen=True)
class Answered:
    """One answer. `first` and `seconds` count from the request; `error` is what went wrong."""

    first: float
    seconds: float
    tokens: int
    error: str = ""
    text: str = ""


async def ask(client: httpx2.AsyncClient, body: Body) -> Answered:
    """Ask once and read the whole answer, streamed or not."""
    began, first = time.perf_counter(), 0.0
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            raw = bytearray()
            async for piece in answer.aiter_bytes():
                raw += piece
                if not first and (FIRST in raw or not body.get("stream")):
                    first = time.perf_counter() - began
        seconds = time.perf_counter() - began
        if answer.status_code != 200:
            return Answered(first, seconds, 0, f"status {answer.status_code}")
        last = _last_event(bytes(raw)) if body.get("stream") else orjson.loads(raw)
        text = "" if body.get("stream") else last["choices"][0]["message"]["content"]
        return Answered(first, seconds, last["usage"]["completion_tokens"], "", text or "")
    except (httpx2.HTTPError, orjson.JSONDecodeError, KeyError, IndexError) as error:
        return Answered(first, time.perf_counter() - began, 0, type(error).__name__)


def _last_event(raw: bytes) -> Any:
    *events, done = [line for line in raw.split(b"\n") if line.startswith(b"data: ")]
    if done != b"data: [DONE]":
        raise KeyError("[DONE]")
    return orjson.loads(events[-1].removeprefix(b"data: "))


async def ask_all(url: str, bodies: Sequence[Body], clients: int) -> list[Answered]:
    """Ask everything, `clients` at a time."""
    room = asyncio.Semaphore(clients)
    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(
        base_url=url, limits=limits, timeout=PATIENCE, trust_env=False
    ) as client:

        async def one(body: Body) -> Answered:
            async with room:
                return await ask(client, body)

        return await asyncio.gather(*map(one, bodies))


def percentiles(values: Sequence[float]) -> Mapping[str, float]:
    """Return the 50th, 90th and 99th percentile."""
    import numpy as np

    at = (50, 90, 99)
    found = np.percentile(values, at) if values else [float("nan")] * len(at)
    return {f"p{each}": float(value) for each, value in zip(at, found, strict=True)}
