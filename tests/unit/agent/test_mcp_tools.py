"""MCP servers as tools: one server for each episode, spoken to with the official SDK."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

import offapi
from offapi.agent.episode_host import EpisodeHost, Opened
from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.tools import Observation, ToolCall, Turn

SERVER = '''
import os
from mcp.server.mcpserver import MCPServer

server = MCPServer("register")
seen = []


@server.tool()
def search(query: str, at_most: int = 5) -> str:
    """Search the register."""
    seen.append(query)
    if query == "nobody":
        raise ValueError("no such vendor")
    return f"{os.getpid()} {seen}"


server.run()
'''
TASK = '''
import sys
import offapi
from offapi.checks import Verdict

def shout(word: str) -> str:
    """Say it loudly.

    Args:
        word: The word.
    """
    return word.upper()

task = offapi.Task(
    name="t", instructions="x", schema=None, checks={"a": (lambda *_: Verdict(1.0, ""), 1.0)},
    tools=(shout, offapi.mcp(sys.executable, "server.py", env={"PYTHONPATH": PATHS})),
)
'''


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EpisodeHost]:
    pytest.importorskip("mcp.client.client")
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "server.py").write_text(SERVER)
    task = TASK.replace("PATHS", repr(os.pathsep.join(filter(None, sys.path))))
    task = task.replace('"server.py"', repr(str(folder / "server.py")))
    (folder / "task.py").write_text(task)
    with EpisodeHost(folder / "task.py") as host:
        yield host


def test_a_servers_tools_are_called_in_each_episode_alone(host: EpisodeHost) -> None:
    servers = []
    for key in ("first", "second"):
        host.open(key, Document("d", "A receipt."))
    assert {reply for _, reply in host.wait(["first", "second"])} == {Opened(())}
    for key in ("first", "second"):
        calls = (
            ToolCall("1", "search", {"query": "Süd"}),
            ToolCall("2", "search", {"query": "nobody"}),
            ToolCall("3", "search", {"name": "x"}),
            ToolCall("4", "shout", {"word": "hey"}),
        )
        host.step(key, Turn("", calls))
        ((_, reply),) = host.wait([key])
        assert isinstance(reply, Observation)
        first, second, third, fourth = (message["content"] for message in reply.messages)
        pid, seen = first.split(" ", 1)
        assert seen == "['Süd']"
        assert second.startswith("Error: Error executing tool search")
        assert third == "Error: tool 'search' has no argument 'name'. Known: at_most, query."
        assert (fourth, reply.errors) == ("HEY", 2)
        servers.append(int(pid))
    assert servers[0] != servers[1]
    host.close("first", [])
    host.wait(["first"])
    host.open("third", Document("d", "x"))  # by then the first one's process has been ended
    host.wait(["third"])
    assert [psutil.pid_exists(pid) for pid in servers] == [False, True]


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['mcp'] = None\nimport offapi, json\n"
        "from offapi.errors import ConfigError\n"
        "try:\n    offapi.mcp('serve').schemas()\n"
        "except ConfigError as error:\n    print(json.dumps([str(error)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (said,) = json.loads(done.stdout)
    assert re.search(r"MCP server 'serve': .*pip install 'offapi-kit\[mcp\]'", said)


def test_a_command_that_is_not_a_server_is_an_error() -> None:
    pytest.importorskip("mcp.client.client")
    with pytest.raises(ConfigError, match="MCP server '/nowhere/server x': it does not say its"):
        offapi.mcp("/nowhere/server", "x").schemas()


def test_a_server_behind_a_url_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be a command, got 'https:"):
        offapi.mcp("https://mcp.example.com")
