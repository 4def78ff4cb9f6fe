"""What a model says in one turn, and what its environment answers.

Left out: how a model writes a call, which is its chat format's (`offapi.chat`), and running it
(`offapi.tools.episode_host`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class ToolCall:
    """One call. `id` is unique in its episode and names the call in the result's message."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class MalformedCall:
    """What a model wrote where a call should be, and why it is not one, in words for the model."""

    text: str
    why: str


@dataclass(frozen=True)
class Turn:
    """One assistant's turn: its text without the calls, and the calls in order."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    malformed: tuple[MalformedCall, ...] = ()

    @property
    def final(self) -> bool:
        """Whether the turn is the answer: it calls nothing, and tried to call nothing."""
        return not self.calls and not self.malformed

    def message(self) -> dict[str, Any]:
        """Return the turn as a message of OpenAI's shape, arguments as JSON text."""
        if not self.calls:
            written = "".join(each.text for each in self.malformed)
            return {"role": "assistant", "content": self.text + written}
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": orjson.dumps(dict(call.arguments)).decode(),
                },
            }
            for call in self.calls
        ]
        return {"role": "assistant", "content": self.text, "tool_calls": calls}


@dataclass(frozen=True)
class Observation:
    """What an environment answers to a turn.

    `messages` are appended to the chat, a `tool` message for each call. `done` ends the episode
    without another turn. `reward` is this turn's own, besides the episode's final reward.
    `errors` counts the calls that failed, malformed ones included; `seconds` is the time that the
    tools took.
    """

    messages: tuple[Mapping[str, Any], ...]
    done: bool = False
    reward: float = 0.0
    errors: int = 0
    seconds: float = 0.0
