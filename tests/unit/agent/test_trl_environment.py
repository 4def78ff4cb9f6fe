"""Environments of TRL's shape, as its documentation and `GRPOTrainer` 1.16 have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from offapi.agent.episode_host import Closed, EpisodeHost, Opened
from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.tools import Observation, ToolCall, Turn
from offapi.tools.trl_environment import from_trl

TASK = '''
import offapi
from offapi.checks import Verdict
from offapi.tools.trl_environment import from_trl

class Counting:
    """As in TRL: public methods are tools, a row's columns come to `reset`."""

    def __init__(self):
        self.counter = 0

    def reset(self, target=1, **kwargs) -> str | None:
        self.counter, self.target = 0, target
        self.prompt = kwargs["prompt"][-1]["content"]
        return f"Count to {target}." if target != 1 else None

    def increment(self, step: int) -> int:
        """
        Increment the counter.

        Args:
            step: What to add.

        Returns:
            The counter.
        """
        self.counter += step
        return self.counter

    async def read(self) -> str:
        """Read the prompt."""
        return self.prompt

    async def get_reward(self) -> float:
        return float(self.counter == self.target)

    def _hidden(self):
        pass

task = offapi.Task(
    name="t", instructions="x", schema=None, checks={"a": (lambda *_: Verdict(1.0, ""), 1.0)},
    environment=from_trl(Counting, {"far": {"target": 5}}),
)
'''


def test_a_trl_environment_runs_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(TASK)
    with EpisodeHost(file) as host:
        host.open("near", Document("near", "One."))
        host.open("far", Document("far", "Five."))
        said = {"role": "user", "content": "Count to 5."}
        assert dict(host.wait(["far", "near"])) == {"near": Opened(()), "far": Opened((said,))}
        calls = (
            ToolCall("1", "increment", {"step": 2}),
            ToolCall("2", "increment", {"step": 3}),
            ToolCall("3", "read", {}),
            ToolCall("4", "get_reward", {}),
        )
        for key in ("near", "far"):
            host.step(key, Turn("", calls))
        replies = dict(host.wait(["near", "far"]))
        near = replies["near"]
        assert isinstance(near, Observation)
        assert [message["content"] for message in near.messages][:3] == ["2", "5", "One."]
        said_of_tools = "Error: there is no tool 'get_reward'. Known: increment, read."
        assert near.messages[3]["content"] == said_of_tools
        for key in ("near", "far"):
            host.close(key, [])
        assert dict(host.wait(["near", "far"])) == {"near": Closed(0.0), "far": Closed(1.0)}


def test_a_class_without_reset_is_refused() -> None:
    class Nothing:
        pass

    with pytest.raises(ConfigError, match="Nothing has no method `reset`"):
        from_trl(Nothing).by_source()
