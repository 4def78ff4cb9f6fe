"""An episode as the client of an endpoint keeps it: what is sent for each turn, and what it took.

Call ids are ours, since servers repeat them. Left out: sending (`agent_session`), and thinking.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from offapi.agent.episode import AgentLimits
from offapi.agent.episode_host import Opened
from offapi.data.documents import Document
from offapi.task import Task
from offapi.teachers.agent_teacher import AgentLabel, reason_of
from offapi.teachers.teacher import Answered, Request, Usage
from offapi.tools.calls import MalformedCall, Observation, ToolCall, Turn

TRUNCATED = "truncated"


class ClientEpisode:
    """One document's episode. `over` is set once it has ended."""

    def __init__(self, task: Task, document: Document) -> None:
        self.task, self.document = task, document
        self.messages: list[dict[str, Any]] = list(task.messages(document.text))
        self.limits = AgentLimits.of(task, tokens=0)
        self.over, self.reason, self.usage = False, "", Usage()
        self.turns, self._calls, self._errors, self._tool_seconds = 0, 0, 0, 0.0
        self._began = time.perf_counter()

    def begin(self, opened: Opened) -> None:
        """Take what the environment says first."""
        self._began = time.perf_counter()
        self.messages += map(dict, opened.messages)

    def request(self) -> Request:
        """Return what is sent for the next turn."""
        return Request(self.document.id, as_sent(self.messages), tuple(self.task.tool_schemas))

    def say(self, answered: Answered) -> Turn:
        """Append the model's turn, and return it."""
        turn = self._turn(answered)
        self.turns += 1
        self.usage += answered.usage
        if not answered.reason or answered.output:
            self.messages.append(turn.message())
        if answered.reason:
            cut = answered.reason == TRUNCATED
            self.end(reason_of("length", self.limits) if cut else answered.reason)
        elif turn.final:
            self.end()
        return turn

    def hear(self, observation: Observation) -> None:
        """Take what the environment answered to the last turn."""
        self._errors += observation.errors
        self._tool_seconds += observation.seconds
        if observation.done:
            self.end()
        elif self.turns >= self.limits.turns:
            self.end(reason_of("turns", self.limits))
        elif self._tool_seconds > self.limits.tool_seconds:
            self.end(reason_of("tool_seconds", self.limits))
        else:
            self.messages += map(dict, observation.messages)

    def end(self, reason: str = "") -> None:
        """Note that the episode is over: without a `reason`, it has an answer."""
        self.over, self.reason = True, reason

    def label(self) -> AgentLabel:
        """Return the episode."""
        seconds = time.perf_counter() - self._began
        messages = tuple(self.messages)
        return AgentLabel(
            self.document.id, messages, self.reason, self.usage, seconds, self._errors
        )

    def _turn(self, answered: Answered) -> Turn:
        calls: list[ToolCall] = []
        for call in answered.calls:
            if isinstance(call, ToolCall):
                self._calls += 1
                calls.append(replace(call, id=f"call{self._calls:05}"))
        malformed = tuple(each for each in answered.calls if isinstance(each, MalformedCall))
        return Turn(answered.output, tuple(calls), malformed)


def as_sent(messages: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return `messages` as every server takes them.

    What answers a call that could not be read names no call, and is sent as the user's. Templates
    want the user's messages one at a time, so those that follow each other are joined.
    """
    sent: list[dict[str, Any]] = []
    for message in messages:
        unnamed = message["role"] == "tool" and "tool_call_id" not in message
        given = {"role": "user", "content": message["content"]} if unnamed else dict(message)
        if given["role"] == "user" and sent and sent[-1]["role"] == "user":
            sent[-1]["content"] += f"\n\n{given['content']}"
        else:
            sent.append(given)
    return tuple(sent)
