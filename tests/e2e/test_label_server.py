"""`offapi label` against a third-party server (mlx_lm.server): killed and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import pytest
from recipe_folder import start, until

pytestmark = pytest.mark.skipif(
    find_spec("mlx_lm") is None, reason="mlx_lm.server is not installed: pip install '.[mlx]'"
)

COUNT, CONCURRENCY, WORDS = 24, 3, 80
SERVER = (
    "import sys; from mlx_lm.server import main; print('prepared', flush=True); sys.stdin.read();"
    " main()"
)
TASK = """
import offapi
from offapi import checks
task = offapi.Task(
    name="notes",
    instructions="Answer.",
    schema={"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]},
    checks={"json": (checks.is_json, 1.0)},
    match={"note": "text"},
    max_answer_tokens=100,
)
"""


def answer(last: str) -> list[str]:
    """Return the answer to a document that ends so, long enough to be caught in the middle."""
    return [f'{{"{last}":"', *(f"{last}{i:02} " for i in range(WORDS)), f'{last}"}}']


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answer depends on the document."""
    return bigram_llama.write(
        tmp_path_factory.mktemp("model") / "parrot", {last: answer(last) for last in "xy"}
    )


class Server:
    """mlx_lm.server on its own port, with a log that survives restarts."""

    def __init__(self, model: Path, log: Path) -> None:
        self.model, self.log = model, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Start the process up to where the server would bind its port."""
        options = [
            "--model",
            self.model,
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
            "--log-level",
            "DEBUG",
        ]
        with self.log.open("ab") as log:
            self.spare = subprocess.Popen(
                [sys.executable, "-c", SERVER, *map(str, options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            )
        assert self.spare.stdout
        assert self.spare.stdout.readline() == b"prepared\n", self.log.read_text()[-2000:]

    def start(self) -> None:
        """Let the prepared process serve, and wait until it is healthy."""
        self.process = self.spare
        assert self.process.stdin
        self.process.stdin.close()
        until(self._healthy, lambda: self.log.read_text()[-2000:])

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def asked(self) -> Counter[str]:
        """Count how often each document arrived, by the server's log."""
        return Counter(re.findall(r'"content": "(doc \d+) [xy]"', self.log.read_text()))


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[Server]:
    running = Server(model, tmp_path / "server.log")
    yield running
    for process in (running.process, running.spare):
        process.kill()
        process.wait()


class Client:
    """The `offapi label` command over one set of documents."""

    def __init__(self, folder: Path, url: str) -> None:
        self.out = folder / "labels.jsonl"
        (folder / "task.py").write_text(TASK)
        rows = [{"id": f"doc {i}", "document": f"doc {i} {'xy'[i % 2]}"} for i in range(COUNT)]
        (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.words = ["label", "--task", folder / "task.py", "--data", folder / "docs.jsonl"]
        self.words += ["--teacher", url, "--out", self.out, "--concurrency", CONCURRENCY, "--json"]

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            start(*self.words, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def finish(self, *more: str) -> dict[str, Any]:
        """Run to the end, which must succeed, and return the result."""
        process = self.start(*more)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        result: dict[str, Any] = json.loads(out)
        return result

    def rows(self) -> list[dict[str, Any]]:
        """Return the complete lines so far."""
        lines = self.out.read_bytes().split(b"\n")[:-1] if self.out.exists() else []
        return [json.loads(line) for line in lines]

    def answered(self) -> set[str]:
        return {row["id"] for row in self.rows() if row["status"] == "ok"}

    def half_way(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until some answers are in and others are not."""
        until(lambda: len(self.rows()) >= COUNT // 3, lambda: f"{len(self.rows())} rows")
        assert process.poll() is None
        assert len(self.rows()) < COUNT


def assert_complete(client: Client) -> None:
    """Every document has exactly one ok label: the words its own text calls for."""
    labels = [row for row in client.rows() if row["status"] == "ok"]
    assert sorted(row["id"] for row in labels) == sorted(f"doc {i}" for i in range(COUNT))
    for row in labels:
        last = "xy"[int(row["id"].split()[1]) % 2]
        assert row["output"] == "".join(answer(last))
        assert row["usage"]["completion_tokens"] == WORDS + 3
        assert row["usage"]["prompt_tokens"] > 10
        assert 0 < row["seconds"] < 60


def test_killed_half_way_it_resumes_without_asking_twice(server: Server, tmp_path: Path) -> None:
    client = Client(tmp_path, server.url)
    process = client.start()
    client.half_way(process)
    process.kill()
    process.communicate()
    before = client.answered()

    result = client.finish()
    assert_complete(client)
    assert (result["ok"], result["left"], result["asked"]) == (COUNT, 0, COUNT - len(before))
    asked = server.asked()
    assert set(asked) == {f"doc {i}" for i in range(COUNT)}
    assert all(asked[id] == 1 for id in before)
    assert asked.total() <= COUNT + CONCURRENCY  # only what was under way when it was killed

    assert client.finish()["asked"] == 0
    assert server.asked() == asked


def test_ctrl_c_keeps_the_answers_and_says_how_to_resume(server: Server, tmp_path: Path) -> None:
    client = Client(tmp_path, server.url)
    process = client.start()
    client.half_way(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert (
        "run the same command again to resume" in json.loads(err.strip().splitlines()[-1])["next"]
    )
    before = client.answered()
    client.finish()
    assert_complete(client)
    assert all(server.asked()[id] == 1 for id in before)


def test_a_server_that_stays_away_ends_it_with_reasons(server: Server, tmp_path: Path) -> None:
    client = Client(tmp_path, server.url)
    process = client.start()
    client.half_way(process)
    server.kill()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert "documents in a row got no answer" in json.loads(err)["message"]
    assert "--retry-failed" in json.loads(err)["next"]
    before = client.answered()
    failed = [row for row in client.rows() if row["status"] == "failed"]
    assert failed
    assert all(row["reason"].startswith(("unreachable", "connection lost")) for row in failed)

    server.prepare()
    server.start()
    result = client.finish("--retry-failed")
    assert (result["ok"], result["failed"], result["left"]) == (COUNT, {}, 0)
    assert_complete(client)
    assert all(server.asked()[id] == 1 for id in before)


def test_a_server_that_is_restarted_is_waited_for(server: Server, tmp_path: Path) -> None:
    client = Client(tmp_path, server.url)
    server.prepare()
    process = client.start()
    client.half_way(process)
    before = client.answered()
    server.kill()
    server.start()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert (json.loads(out)["ok"], json.loads(out)["failed"]) == (COUNT, {})
    assert_complete(client)
    assert all(server.asked()[id] == 1 for id in before)
