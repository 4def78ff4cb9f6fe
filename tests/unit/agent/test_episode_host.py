"""Environments in processes of their own: what tools do to themselves stays with their episode."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from offapi.agent.episode_host import Closed, EpisodeHost, Opened
from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.network import guard
from offapi.tools import MalformedCall, Observation, ToolCall, Turn
from offapi.tools.results import MOST_CHARACTERS

TASK = '''
import asyncio, os, random, socket, subprocess, sys, time
import offapi
from offapi.checks import Verdict

SEEN = []
PLACE = os.path.dirname(os.path.abspath(__file__))

def remember(word: str, state: offapi.EpisodeState) -> dict:
    """Remember a word in every place there is.

    Args:
        word: The word.
    """
    SEEN.append(word)
    kept = state.values.setdefault("words", [])
    kept.append(word)
    (state.folder / word).write_text(word)
    register = state.sqlite("register.sqlite", writable=True)
    register.execute("INSERT INTO names VALUES (?)", (word,))
    names = [name for (name,) in register.execute("SELECT name FROM names")]
    files = sorted(path.name for path in state.folder.iterdir() if not path.suffix)
    return {"globals": SEEN, "kept": kept, "files": files, "names": names, "folder": str(state.folder)}

def look(query: str, at_most: int | None = None, state: offapi.EpisodeState = None) -> list[str]:
    """Look a name up.

    Args:
        query: Part of it.
        at_most: How many.
    """
    rows = state.sqlite("register.sqlite").execute(
        "SELECT name FROM names WHERE name LIKE ?", (query + "%",)
    )
    return [name for (name,) in rows]

def write(state: offapi.EpisodeState) -> None:
    """Write into the register that all episodes read."""
    state.sqlite("register.sqlite").execute("DELETE FROM names")

def chance() -> list:
    """Return what is random."""
    return [random.random(), hash("vendor"), os.environ.get("PYTHONHASHSEED")]

def dial(address: str) -> str:
    """Connect to an address.

    Args:
        address: The address.
    """
    socket.create_connection((address, 80), timeout=1)

def hang() -> str:
    """Never return."""
    while True:
        time.sleep(1)

def fail() -> str:
    """Raise."""
    raise ValueError("no such vendor \\ud800")

def leave(code: int, at_once: bool) -> str:
    """End the process.

    Args:
        code: Its exit code.
        at_once: Without a word.
    """
    os._exit(code) if at_once else sys.exit(code)

def large(characters: int) -> str:
    """Return much.

    Args:
        characters: How much.
    """
    return "x" * characters

def start(session: bool) -> list[int]:
    """Start programs that outlive the call.

    Args:
        session: In a session of their own.
    """
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    forked = os.fork()
    if forked == 0:
        if session:
            os.setsid()
        time.sleep(60)
    return [forked, subprocess.Popen(command, start_new_session=session).pid]

def eat() -> str:
    """Use more and more memory."""
    kept = []
    while True:
        kept.append(bytearray(20_000_000))
        time.sleep(0.01)

async def together(episode: int, of: int) -> int:
    """Return once as many calls run at the same time as are awaited.

    Args:
        episode: Which one this is.
        of: How many are awaited.
    """
    open(f"{PLACE}/running-{of}-{episode}", "w").close()
    while len([name for name in os.listdir(PLACE) if name.startswith(f"running-{of}-")]) < of:
        await asyncio.sleep(0.01)
    return of

task = offapi.Task(
    name="t", instructions="x", schema=None,
    checks={"text": (lambda *_: Verdict(1.0, ""), 1.0)},
    tools=(remember, look, write, hang, fail, leave, chance, dial, large, start, eat, together),
    tool_seconds=SECONDS,
)
'''
DOCUMENT = Document("d", "A receipt.", gold={"vendor": "secret"})


def call(name: str, /, number: int = 1, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{number}", name, arguments)


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    with sqlite3.connect(folder / "register.sqlite") as register:
        register.execute("CREATE TABLE names (name)")
        register.execute("INSERT INTO names VALUES ('Anna'), ('Bert')")
    register.close()
    (folder / "task.py").write_text(TASK.replace("SECONDS", "1.5"))
    return folder / "task.py"


@pytest.fixture(scope="module")
def host(task_file: Path) -> Iterator[EpisodeHost]:
    before = set(psutil.Process().children(recursive=True))
    with EpisodeHost(task_file) as host:
        yield host
        scratch = host._scratch
        children = set(psutil.Process().children(recursive=True)) - before
        assert children
    names = {child.name() for child in children if child.is_running() and _alive(child)}
    assert names <= {"python", "python3", "python3.11"}, names
    assert not [child for child in children if _alive(child) and "tracker" not in _line(child)]
    assert not scratch.exists()
    refused = [each["target"] for each in guard.report()["refused"]]
    assert any("192.0.2.1" in target for target in refused)


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


class Episode:
    """One episode, asked and awaited."""

    def __init__(self, host: EpisodeHost, key: str) -> None:
        self.host, self.key = host, key
        host.open(key, DOCUMENT)
        assert host.wait([key]) == [(key, Opened(()))]

    def step(self, *calls: ToolCall, malformed: tuple[MalformedCall, ...] = ()) -> Observation:
        self.host.step(self.key, Turn("", calls, malformed))
        ((_, reply),) = self.host.wait([self.key])
        assert isinstance(reply, Observation)
        assert [message["tool_call_id"] for message in reply.messages[: len(calls)]] == [
            each.id for each in calls
        ]
        return reply

    def close(self) -> None:
        self.host.close(self.key, [])
        assert self.host.wait([self.key]) == [(self.key, Closed(None))]


def texts(observation: Observation) -> list[str]:
    return [message["content"] for message in observation.messages]


def test_results_and_what_is_wrong_with_a_call_are_the_models_to_read(host: EpisodeHost) -> None:
    episode = Episode(host, "calls")
    found = episode.step(call("look", query="An"), call("look", 2, query="B", at_most=None))
    assert texts(found) == ['["Anna"]', '["Bert"]']
    assert found.messages[0]["name"] == "look"
    assert (found.errors, found.done, found.reward) == (0, False, 0.0)
    assert 0 < found.seconds < 1
    wrong = episode.step(
        call("lok", query="A"),
        call("look"),
        call("look", query=3),
        call("look", query="A", limit=3),
        call("fail"),
        call("leave", code=3, at_once=False),
        call("write"),
        malformed=(MalformedCall("<tool_call>{", "it is not JSON"),),
    )
    assert texts(wrong) == [
        "Error: there is no tool 'lok'. Did you mean 'look'?",
        "Error: the arguments of 'look' do not fit: \"query\" is a required property.",
        "Error: the arguments of 'look' do not fit: query: 3 is not of type \"string\".",
        "Error: tool 'look' has no argument 'limit'. Known: at_most, query.",
        "Error: ValueError: no such vendor \\ud800",
        "Error: SystemExit: 3",
        "Error: OperationalError: attempt to write a readonly database",
        "Error: the call could not be read: it is not JSON",
    ]
    assert wrong.errors == 8
    assert wrong.messages[-1] == {"role": "tool", "content": texts(wrong)[-1]}
    (long,) = texts(episode.step(call("large", characters=10_000_000)))
    assert len(long) < MOST_CHARACTERS + 100
    assert long.endswith("x\n[cut: the first 8,000 of 10,000,000 characters]")
    episode.close()


def test_episodes_do_not_see_each_other(host: EpisodeHost, task_file: Path) -> None:
    import json

    first, second = Episode(host, "first"), Episode(host, "second")
    host.step("first", Turn("", (call("remember", word="one"), call("remember", 2, word="two"))))
    host.step("second", Turn("", (call("remember", word="three"),)))
    replies = dict(host.wait(["second", "first"]))
    seen = {key: json.loads(texts(reply)[-1]) for key, reply in replies.items()}  # type: ignore[arg-type]
    assert seen["first"]["globals"] == ["one", "two"]
    assert seen["second"]["globals"] == seen["second"]["files"] == ["three"]
    assert [seen["first"]["kept"], seen["second"]["kept"]] == [["one", "two"], ["three"]]
    assert seen["first"]["names"] == ["Anna", "Bert", "one", "two"]
    assert seen["second"]["names"] == ["Anna", "Bert", "three"]
    folders = [Path(each["folder"]) for each in seen.values()]
    assert [folder.exists() for folder in folders] == [True, True]
    first.close()
    second.close()
    assert [folder.exists() for folder in folders] == [False, False]
    with sqlite3.connect(task_file.parent / "register.sqlite") as register:
        assert register.execute("SELECT count(*) FROM names").fetchone() == (2,)
    register.close()


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([call("hang")], "'hang' took more than 1.5 seconds and was ended."),
        (
            [call("leave", code=3, at_once=True)],
            "'leave' ended its process (exit code 3).",
        ),
    ],
)
def test_a_tool_that_ends_its_process_ends_the_tools_of_its_episode_alone(
    host: EpisodeHost, calls: list[ToolCall], said: str
) -> None:
    other = Episode(host, f"other {calls[0].name}")
    episode = Episode(host, calls[0].name)
    before, after = call("look", 7, query="An"), call("look", 8, query="An")
    lost = episode.step(before, *calls, after)
    first, second, third = texts(lost)
    assert first == '["Anna"]'
    assert second == f"Error: {said} The tools of this episode are gone."
    assert third.startswith("Error: 'look' was not called: another call ")
    assert lost.errors == 2
    again = episode.step(after)
    assert texts(again)[0].startswith("Error: the tools of this episode are gone: ")
    assert again.errors == 1
    assert texts(other.step(after)) == ['["Anna"]']
    episode.close()
    other.close()


def test_a_tool_that_eats_memory_is_ended(
    host: EpisodeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offapi.agent.episode_host.most_memory", lambda: 400e6)
    episode = Episode(host, "eats")
    (said,) = texts(episode.step(call("eat")))
    assert said.startswith("Error: 'eat' used 0.")
    assert " GB of memory, 0.4 are allowed." in said
    episode.close()


@pytest.mark.parametrize("session", [False, True])
def test_what_a_tool_started_ends_with_its_episode(host: EpisodeHost, session: bool) -> None:
    import json

    if session and not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        pytest.skip("only Linux lists a process's children")
    episode = Episode(host, f"starts {session}")
    started = json.loads(texts(episode.step(call("start", session=session)))[0])
    assert all(_alive(psutil.Process(pid)) for pid in started)
    episode.close()
    Episode(host, f"waits {session}").close()  # the one before has been ended by now
    assert not [pid for pid in started if psutil.pid_exists(pid) and _alive(psutil.Process(pid))]


def test_async_tools_of_eight_episodes_and_of_one_turn_run_side_by_side(host: EpisodeHost) -> None:
    episodes = [Episode(host, f"async {i}") for i in range(8)]
    for i, episode in enumerate(episodes):
        host.step(episode.key, Turn("", (call("together", episode=i, of=8),)))
    replies = host.wait([episode.key for episode in episodes])
    assert [texts(reply) for _, reply in replies] == [["8"]] * 8  # type: ignore[arg-type]
    first = episodes[0]
    calls = [call("together", i, episode=i, of=3) for i in range(3)]
    assert texts(first.step(*calls)) == ["3"] * 3
    late = first.step(call("together", episode=0, of=4), call("look", query="An"))
    assert texts(late) == ["Error: it took more than 1.5 seconds.", '["Anna"]']
    for episode in episodes:
        episode.close()


def test_an_episode_is_closed_while_its_tool_runs(host: EpisodeHost) -> None:
    episode = Episode(host, "early")
    host.step("early", Turn("", (call("hang"),)))
    started = time.monotonic()
    episode.close()
    assert time.monotonic() - started < 1.0


def test_what_is_random_is_the_same_in_each_run_and_the_network_is_refused(
    host: EpisodeHost,
) -> None:
    import json

    first, second = Episode(host, "chance 1"), Episode(host, "chance 2")
    seen = [json.loads(texts(each.step(call("chance")))[0]) for each in (first, second)]
    code = "import random; random.seed('d'); print([random.random(), hash('vendor'), None])"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    alone = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert seen == [json.loads(alone.replace("None", "null"))] * 2
    (refused,) = texts(first.step(call("dial", address="192.0.2.1")))
    assert "the network guard refused 192.0.2.1" in refused
    first.close()
    second.close()


def test_a_task_file_that_does_not_load_is_an_error_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text("import offapi\n\ntask = offapi.Tusk()\n")
    with EpisodeHost(file) as host:
        host.open(1, DOCUMENT)
        with pytest.raises(ConfigError, match=r"task.py, line 3.*Tusk"):
            host.wait([1])
