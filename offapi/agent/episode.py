"""A finished episode: its tokens as they were sampled, its messages, and what it took.

Left out: how it is run (`offapi.agent.run_episodes`) and rewarded (`offapi.rl`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from offapi.completions import Completion
from offapi.episodes import Segment
from offapi.task.task import Task

# stop: the model answered; length: a turn was cut off; turns, tokens, tool_seconds: the limit of
# the episode that was reached; done: its environment ended it
AgentFinish = Literal["stop", "length", "turns", "tokens", "tool_seconds", "done"]
FINISHES: tuple[AgentFinish, ...] = get_args(AgentFinish)


@dataclass(frozen=True)
class AgentLimits:
    """What one episode may take; each limit is a finish of its own."""

    turns: int  # of the assistant
    turn_tokens: int  # sampled in one turn
    tokens: int  # of the whole episode, prompt included
    tool_seconds: float  # in all calls together

    @classmethod
    def of(cls, task: Task, tokens: int) -> AgentLimits:
        """Return what an episode of `task` may take, `tokens` in all."""
        return cls(task.max_turns, task.max_answer_tokens, tokens, task.max_tool_seconds)


@dataclass(frozen=True)
class AgentEpisode:
    """One episode of the prompt `prompt`, the `sample`th of its group.

    `segments` hold every token that the model saw or sampled, in order. `turns` are the sampled
    ones, one for each assistant's turn. `messages` are the whole chat, prompt included, and end
    with an assistant's message.
    """

    prompt: int
    sample: int
    segments: tuple[Segment, ...]
    turns: tuple[Completion, ...]
    messages: tuple[Mapping[str, Any], ...]
    finish: AgentFinish
    tool_calls: int = 0
    tool_errors: int = 0  # failed and malformed calls
    malformed: int = 0
    tool_seconds: float = 0.0
    rewards: tuple[float, ...] = ()  # one per turn, of the environment's steps
    score: float | None = None  # of the environment; None: the task's checks or reward say

    @property
    def text(self) -> str:
        """The answer: the last message's text; "" where the episode ended without one."""
        last = self.messages[-1]
        if self.finish != "stop" or last.get("tool_calls"):
            return ""
        return str(last.get("content") or "")
