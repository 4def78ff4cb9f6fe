"""Tasksets of verifiers 0.4 as environments; skipped where the library is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from offapi.agent.episode_host import Closed, EpisodeHost, Opened
from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.tools import Observation, ToolCall, Turn

TASK = '''
import verifiers.v1 as vf
import offapi
from offapi.checks import Verdict
from offapi.tools.verifiers_environment import from_verifiers, verifiers_documents

class Row(vf.TaskData):
    target: int

class Count(vf.State):
    counter: int = 0

class Tools(vf.Toolset[vf.ToolsetConfig, Count]):
    @vf.tool
    async def add(self, step: int) -> str:
        """Add to the counter."""
        self.state.counter += step
        return f"{self.base} {self.state.counter}"

    async def setup_task(self, task):
        self.base = task.prompt_text

class Counting(vf.Task[Row, Count]):
    async def setup(self, trace, runtime):
        trace.state.counter = 10
        await runtime.run(["sh", "-c", "echo ready > here"], {})

    @classmethod
    def toolsets(cls, config):
        return [Tools(vf.ToolsetConfig())]

    @vf.reward
    async def reached(self, trace, runtime) -> float:
        written = await runtime.run(["cat", "here"], {})
        assert written.stdout.strip() == "ready", written
        return float(trace.state.counter == self.data.target)

    @vf.reward(weight=0.5)
    async def said(self, trace) -> float:
        assert trace.num_turns == 2, trace.nodes
        return float(trace.assistant_messages[-1].content == "done")

class Counters(vf.Taskset[Counting]):
    def load(self):
        for target in (12, 15):
            yield Counting(Row(prompt=f"Reach {target}.", target=target, name=f"to-{target}"))

taskset = Counters(vf.TasksetConfig())
documents = list(verifiers_documents(taskset))
task = offapi.Task(
    name="t", instructions="x", schema=None, checks={"a": (lambda *_: Verdict(1.0, ""), 1.0)},
    environment=from_verifiers(taskset), tool_seconds=30.0,
)
'''


def test_a_taskset_runs_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("verifiers.v1")
    file = tmp_path / "task.py"
    file.write_text(TASK)
    keys = ["to-12", "to-15"]
    with EpisodeHost(file) as host:
        for key in keys:
            host.open(key, Document(key, f"Reach {key[3:]}."))
        assert dict(host.wait(keys)) == dict.fromkeys(keys, Opened(()))
        call = ToolCall("1", "tools_add", {"step": 2})
        for key in keys:
            host.step(key, Turn("", (call,)))
        seen: dict[object, str] = {}
        for name, reply in host.wait(keys):
            assert isinstance(reply, Observation)
            seen[name] = reply.messages[0]["content"]
        assert seen == {"to-12": "Reach 12. 12", "to-15": "Reach 15. 12"}
        for key in keys:
            chat = [
                {"role": "system", "content": "x"},
                {"role": "user", "content": "Reach it."},
                Turn("", (call,)).message(),
                {"role": "tool", "tool_call_id": "1", "name": "tools_add", "content": "12"},
                {"role": "assistant", "content": "done"},
            ]
            host.close(key, chat)
        assert dict(host.wait(keys)) == {"to-12": Closed(1.5), "to-15": Closed(0.5)}
        host.open("x", Document("to-21", "x"))
        with pytest.raises(ConfigError, match=r"document 'to-21': .* Did you mean 'to-1"):
            host.wait(["x"])
