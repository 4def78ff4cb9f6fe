"""An episode in progress: how its chat begins."""

from __future__ import annotations

from typing import Any

from scripted_agent import ScriptedFormat

from offapi.agent.episode import AgentLimits
from offapi.agent.episode_host import Opened
from offapi.agent.unfinished import Agent, AgentAsk, Unfinished
from offapi.data.documents import Document


class Spelled(ScriptedFormat):
    def prompt(self, messages: Any, id: str = "") -> tuple[int, ...]:
        return tuple(len(message["content"]) for message in messages)


def test_what_an_environment_opens_with_is_the_users_too() -> None:
    agent: Any = Agent(None, Spelled(), AgentLimits(4, 8, 100, 1.0))  # type: ignore[arg-type]
    asked = ({"role": "system", "content": "Play."}, {"role": "user", "content": "Begin."})
    episode = Unfinished(agent, AgentAsk(Document("a", "x"), asked, 0), 0, 0)
    tokens = episode.begin(Opened(({"role": "user", "content": "Your move."},)))
    assert [message["content"] for message in episode.messages] == ["Play.", "Begin.\n\nYour move."]
    assert tokens == (5, 18)
    assert asked[1]["content"] == "Begin."
