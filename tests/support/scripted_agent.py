"""A tool format and an environment host without text or processes, for tests of tokens alone.

Every turn calls a tool until the episode's last, whatever was sampled; results have set tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from offapi.agent.episode_host import Closed, Opened
from offapi.data.documents import Document
from offapi.tools.calls import Observation, ToolCall, Turn

Key = Hashable
Reply = Opened | Observation | Closed


class ScriptedFormat:
    """A message is its tokens. The turn `final` is the answer; the ones before it call."""

    rewrites_history = False

    def __init__(self, final: int = 3) -> None:
        self.final = final

    def prompt(self, messages: Sequence[Mapping[str, Any]], id: str = "") -> tuple[int, ...]:
        return tuple(token for message in messages for token in message["content"])

    def read(self, tokens: Sequence[int], first_call: int = 1) -> Turn:
        if first_call >= self.final:
            return Turn("answer")
        return Turn("", (ToolCall(f"call_{first_call}", "look", {"for": list(tokens)}),))

    def continuation(
        self,
        messages: Sequence[Mapping[str, Any]],
        turn: Turn,
        results: Sequence[Mapping[str, Any]],
    ) -> tuple[int, ...]:
        return tuple(token for result in results for token in result["content"])


class ScriptedHost:
    """Answers each call with tokens that depend on it; every `slow`th reply takes `polls` polls."""

    def __init__(self, slow: int = 0, polls: int = 5, seconds: float = 0.0) -> None:
        self.slow, self.polls, self.seconds = slow, polls, seconds
        self.waiting: dict[Key, tuple[Reply, int]] = {}
        self.asked = 0
        self.most = 0  # episodes open at once
        self.opened: set[Key] = set()

    def open(self, key: Key, document: Document) -> None:
        self.opened.add(key)
        self.most = max(self.most, len(self.opened))
        self._reply(key, Opened(()))

    def step(self, key: Key, turn: Turn) -> None:
        (call,) = turn.calls
        said = sum(call.arguments["for"])
        result = {
            "role": "tool",
            "content": tuple(7 + (said * i) % 90 for i in range(1, said % 4 + 2)),
        }
        self._reply(key, Observation((result,), seconds=self.seconds, reward=0.5))

    def close(self, key: Key, messages: Sequence[Mapping[str, Any]]) -> None:
        self.opened.discard(key)
        self._reply(key, Closed(float(len(messages))))

    def _reply(self, key: Key, reply: Reply) -> None:
        assert key not in self.waiting
        self.asked += 1
        slow = self.slow and self.asked % self.slow == 0
        self.waiting[key] = reply, self.polls if slow else 0

    def poll(self, seconds: float = 0.0) -> list[tuple[Key, Reply]]:
        ready = [key for key, (_, polls) in self.waiting.items() if not polls]
        taken = [(key, self.waiting.pop(key)[0]) for key in ready]
        self.waiting = {key: (reply, polls - 1) for key, (reply, polls) in self.waiting.items()}
        return taken

    def wait(self, keys: Collection[Key]) -> list[tuple[Key, Reply]]:
        taken: list[tuple[Key, Reply]] = []
        while not set(keys) <= {key for key, _ in taken}:
            assert self.waiting
            taken += self.poll()
        return taken
