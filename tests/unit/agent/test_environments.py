"""A task's own environment in its process, and processes that outlive nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from offapi.agent.episode_host import Closed, EpisodeHost, Opened
from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.tools import Observation, ToolCall, Turn

TASK = """
import os, time
import offapi
from offapi.checks import Verdict
from offapi.tools import Observation

class World:
    tools = ({"type": "function", "function": {"name": "look", "parameters": {}}},)

    def reset(self, document):
        if document.text == "raise":
            raise ValueError("no such world")
        self.document, self.steps = document, 0
        return [{"role": "user", "content": f"You are in {document.id}, gold {document.gold}."}]

    def step(self, turn):
        self.steps += 1
        if turn.text == "raise":
            raise KeyError("south")
        if turn.text == "die":
            os._exit(1)
        if turn.text == "fork":
            os.fork()
        content = "x" * 20_000 if turn.text == "long" else f"step {self.steps}"
        reward = float("nan") if turn.text == "nan" else 0.5
        return Observation(({"role": "user", "content": content},), self.steps == 2, reward)

    def score(self, messages):
        return None if messages else self.steps / 2

    def close(self):
        pass

task = offapi.Task(
    name="t", instructions="x", schema=None, checks={"a": (lambda *_: Verdict(1.0, ""), 1.0)},
    environment=World,
)
"""


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("world") / "task.py"
    file.write_text(TASK)
    return file


@pytest.fixture(scope="module")
def host(task_file: Path) -> Iterator[EpisodeHost]:
    with EpisodeHost(task_file) as host:
        yield host


def begin(host: EpisodeHost, key: str, text: str = "A map.") -> None:
    host.open(key, Document("Atlantis", text, gold={"way": "north"}))
    message = {"role": "user", "content": "You are in Atlantis, gold None."}
    assert host.wait([key]) == [(key, Opened((message,)))]


def step(host: EpisodeHost, key: str, text: str) -> Observation:
    host.step(key, Turn(text, (ToolCall("1", "look", {}),)))
    ((_, reply),) = host.wait([key])
    assert isinstance(reply, Observation)
    return reply


def test_the_users_environment_says_what_is_seen_and_how_good_it_was(host: EpisodeHost) -> None:
    begin(host, "a")
    begin(host, "b")
    first = step(host, "a", "long")
    assert (first.done, first.reward, first.errors) == (False, 0.5, 0)
    assert first.messages[0]["content"].endswith("[cut: the first 8,000 of 20,000 characters]")
    raised = step(host, "a", "raise")
    assert raised.messages[0] == {
        "role": "tool", "tool_call_id": "1", "name": "look", "content": "Error: KeyError: 'south'."
    }  # fmt: skip
    assert (raised.errors, raised.done) == (1, False)
    assert step(host, "b", "fork").messages[0]["content"] == "step 1"
    assert step(host, "b", "").done
    host.close("b", [])
    host.close("a", [{"role": "assistant", "content": "north"}])
    assert sorted(host.wait(["a", "b"])) == [("a", Closed(None)), ("b", Closed(1.0))]


def test_to_break_an_environment_does_not_pay(host: EpisodeHost) -> None:
    begin(host, "c")
    lost = step(host, "c", "die")
    assert lost.messages[0]["content"].startswith("Error: 'look' ended its process (exit code 1).")
    host.close("c", [])
    assert host.wait(["c"]) == [("c", Closed(0.0))]


@pytest.mark.parametrize(
    ("text", "turn", "said"),
    [
        ("raise", "", r"task.py: the environment raised ValueError: no such world"),
        ("x", "nan", r"task.py: .* reward must be a finite number, got nan"),
    ],
)
def test_the_environments_own_faults_are_errors(
    host: EpisodeHost, text: str, turn: str, said: str
) -> None:
    def live() -> None:
        host.open(f"fault {text}", Document("Atlantis", text))
        host.wait([f"fault {text}"])
        step(host, f"fault {text}", turn)

    with pytest.raises(ConfigError, match=said):
        live()


def test_the_end_of_the_process_that_forks_is_an_error(task_file: Path) -> None:
    with EpisodeHost(task_file) as host:
        begin(host, "a")
        episode = host._episodes["a"].pid
        os.kill(host._process.pid, signal.SIGKILL)
        with pytest.raises(ConfigError, match="holds the task's tools ended with signal SIGKILL"):
            host.poll(5.0)
    assert not psutil.pid_exists(episode) or not _alive(psutil.Process(episode))


def test_nothing_outlives_a_trainer_that_is_killed(task_file: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from offapi.agent.episode_host import EpisodeHost
from offapi.data.documents import Document
if __name__ == "__main__":
    with EpisodeHost(Path({str(task_file)!r})) as host:
        for key in "ab":
            host.open(key, Document("d", "x"))
        host.wait("ab")
        print(host._scratch, flush=True)
        time.sleep(600)
"""
    file = task_file.parent / "trainer.py"
    file.write_text(code)
    trainer = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    scratch = Path(trainer.stdout.readline().strip())
    started = psutil.Process(trainer.pid).children(recursive=True)
    assert len([each for each in started if "python" in each.name()]) >= 4
    assert scratch.exists()
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait()
    until = time.monotonic() + 20
    while time.monotonic() < until and (scratch.exists() or any(map(_alive, started))):
        time.sleep(0.02)
    assert not scratch.exists()
    assert [each for each in started if _alive(each)] == []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
