"""`offapi serve` in a process of its own, for tests: the real server at a real port."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from recipe_folder import environment, start, until

# The command with other limits than its own, which no option sets.
_WITH_LIMITS = """
import dataclasses, json, sys
from offapi.serve.limits import ServerLimits
limits = dataclasses.asdict(ServerLimits(**json.loads(sys.argv.pop(1))))
ServerLimits.__init__.__defaults__ = tuple(limits.values())
from offapi.cli import main
main()
"""
_ADDRESS = re.compile(r"Serving on (http://\S+:(\d+))/v1")


@dataclass
class Served:
    """A running server; `said` is what it has written to stderr."""

    process: subprocess.Popen[str]
    url: str = ""
    port: int = 0
    said: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return "".join(self.said)

    def end(self, how: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)

    def metric(self, name: str, **labels: str) -> float:
        """Return a number of /metrics; 0 where it is not there."""
        text = httpx2.get(f"{self.url}/metrics", trust_env=False).text
        for line in text.splitlines():
            at, _, value = line.rpartition(" ")
            named = re.match(rf"{name}(_total)?(\{{.*\}})?$", at)
            if named and all(f'{key}="{each}"' in at for key, each in labels.items()):
                return float(value)
        return 0.0

    def client(self, **options: Any) -> Any:
        """Return the openai client for it, which does not try again by itself."""
        import openai

        settings = {"api_key": "none", "max_retries": 0, "timeout": 60, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **settings)


@contextmanager
def serving(
    *words: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
) -> Iterator[Served]:
    """Run `offapi serve WORDS` at a free port until the block ends.

    `limits` are `ServerLimits` other than the command's.
    """
    command = start("serve", *words, "--port", "0")
    if limits is not None:
        command = [sys.executable, "-c", _WITH_LIMITS, json.dumps(limits), *command[1:]]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(**(env or {})),
        stderr=subprocess.PIPE,
        text=True,
    )
    served = Served(process)
    reader = threading.Thread(target=_read, args=(served,), daemon=True)
    reader.start()
    try:
        until(lambda: served.port or process.poll() is not None, lambda: served.log)
        assert served.port, served.log
        yield served
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(10)


def _read(served: Served) -> None:
    assert served.process.stderr is not None
    for line in served.process.stderr:
        served.said.append(line)
        found = _ADDRESS.search(line)
        if found:
            served.url, served.port = found[1], int(found[2])
