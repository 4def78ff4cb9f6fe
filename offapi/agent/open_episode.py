"""An episode's process as the trainer sees it: what was asked, by when, and what came back.

Left out: the process's end, which is its host's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from offapi.task.task import Message
from offapi.tools.calls import Observation, ToolCall, Turn
from offapi.tools.results import error_message, malformed_messages
from offapi.workers.supervised import ending


@dataclass(frozen=True)
class Opened:
    """The episode has begun; `messages` follow the task's own."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Closed:
    """The episode is over, and nothing of it is left.

    `score` is the environment's; None leaves the reward to the task's checks or reward.
    """

    score: float | None


@dataclass
class OpenEpisode:
    """One episode: `asked` is what it has yet to answer, by `deadline`."""

    key: Hashable
    number: int
    pipe: Connection
    asked: Literal["open", "step", "close"] | None = "open"
    deadline: float | None = None  # of time.monotonic
    pid: int = 0  # 0: not yet forked
    turn: Turn = field(default_factory=lambda: Turn(""))
    began: float = 0.0
    results: dict[int, tuple[Message, bool]] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    why: str = ""  # why its process is being ended
    ending: bool = False
    gone: str = ""  # why it has no tools any more

    def ask_step(self, turn: Turn, seconds: float) -> None:
        """Note that `turn` was sent, and is to be answered in `seconds`."""
        self.asked, self.turn, self.began = "step", turn, time.monotonic()
        self.deadline = self.began + seconds
        self.results, self.running = {}, set()

    def hear_call(self, said: Mapping[str, Any], seconds: float) -> None:
        """Note that a call began, which may take `seconds`, or what it returned."""
        place = int(said["call"])
        if "result" in said:
            message, failed = said["result"]
            self.results[place] = message, bool(failed)
            self.running.discard(place)
        else:
            self.running.add(place)
            self.deadline = time.monotonic() + seconds

    def raised(self, error: str, seconds: float) -> Observation:
        """Return the observation of a step whose environment raised `error`."""
        messages = [error_message(call, error) for call in self.turn.calls]
        return self._observation(messages, len(messages), seconds)

    def lost(self) -> Observation:
        """Return the observation of a step during which the process ended."""
        places = enumerate(self.turn.calls)
        answers = [self.results.get(place) or self._died(place, call) for place, call in places]
        messages = [message for message, _ in answers]
        errors = sum(failed for _, failed in answers)
        return self._observation(messages, errors, time.monotonic() - self.began)

    def without_tools(self, turn: Turn) -> Observation:
        """Return the observation of a turn after the process has ended."""
        self.turn = turn
        return self.raised(f"the tools of this episode are gone: {self.gone}.", 0.0)

    def _died(self, place: int, call: ToolCall) -> tuple[Message, bool]:
        if self.running and place not in self.running:
            what = f"{call.name!r} was not called: another call {self.gone}."
        else:
            what = f"{call.name!r} {self.gone}. The tools of this episode are gone."
        return error_message(call, what), True

    def _observation(self, messages: list[Message], errors: int, seconds: float) -> Observation:
        malformed = malformed_messages(self.turn.malformed)
        errors += len(malformed)
        return Observation((*messages, *malformed), errors=errors, seconds=seconds)


def how_it_ended(status: int) -> str:
    """Write the status of `os.waitpid` in words."""
    return f"ended its process ({ending(os.waitstatus_to_exitcode(status))})"
