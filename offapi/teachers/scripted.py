"""A scripted teacher: a Python function writes the turns, and the task's tools answer them.

It knows the gold answer, so its traces are demonstrations. Left out: randomness.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from offapi.agent.episode_host import Closed, EpisodeHost, Opened
from offapi.data.documents import Document
from offapi.errors import ConfigError, error_sentence
from offapi.task import Task
from offapi.teachers.agent_teacher import AgentLabel
from offapi.teachers.teacher import FREE, Price
from offapi.tools import Observation, Turn

PREFIX = "script:"
FUNCTION = "take_turn"
GIVEN_UP = "given up by the script"
AT_A_TIME = 8  # episodes

# (document with its gold, messages so far) -> the next turn; None gives the document up
TakeTurn = Callable[[Document, Sequence[Mapping[str, Any]]], Turn | None]


@dataclass(frozen=True)
class Scripted:
    """The function `take_turn` of the Python file `script`, with the tools of `task_file`."""

    script: Path
    task: Task
    task_file: Path
    price: Price = FREE

    @property
    def name(self) -> str:
        """The name that the user writes on the command line."""
        return f"script:{self.script.name}"

    def episodes(self, documents: Sequence[Document]) -> Generator[AgentLabel, None, None]:
        """Run the script on each document. Raise ConfigError for what it raises itself."""
        take_turn = load_script(self.script)
        waiting, under_way = list(reversed(documents)), dict[str, _Episode]()
        with EpisodeHost(self.task_file) as host:
            while waiting or under_way:
                while waiting and len(under_way) < AT_A_TIME:
                    document = waiting.pop()
                    host.open(document.id, document)
                    under_way[document.id] = _Episode(document, self.task, take_turn, self.script)
                for key, reply in host.poll(1.0):
                    episode = under_way[str(key)]
                    if isinstance(reply, Closed):
                        yield under_way.pop(str(key)).label()
                    elif (turn := episode.next_turn(reply)) is None:
                        host.close(key, episode.messages)
                    else:
                        host.step(key, turn)


class _Episode:
    """One document's episode in progress."""

    def __init__(self, document: Document, task: Task, take_turn: TakeTurn, script: Path) -> None:
        self.document, self.task = document, task
        self.messages: list[dict[str, Any]] = list(task.messages(document.text))
        self._take_turn, self._script = take_turn, script
        self._turns, self._errors, self._reason = 0, 0, ""
        self._began = time.perf_counter()

    def next_turn(self, reply: Opened | Observation) -> Turn | None:
        """Take what the environment said, and return the next turn; None at the end."""
        self.messages += map(dict, reply.messages)
        if isinstance(reply, Observation):
            self._errors += reply.errors
            if reply.done:
                return None
        if self._turns == self.task.max_turns:
            self._reason = f"more than {self.task.max_turns} turns"
            return None
        try:
            turn = self._take_turn(self.document, self.messages)
        except Exception as error:
            what = f"the script raised {error_sentence(error)}"
            where = f"{self._script}, document {self.document.id!r}"
            step = "Fix the script; it may return None to give a document up."
            raise ConfigError(what, where=where, next_step=step) from error
        if turn is None:
            self._reason = GIVEN_UP
            return None
        self._turns += 1
        self.messages.append(turn.message())
        return None if turn.final else turn

    def label(self) -> AgentLabel:
        """Return the finished episode."""
        seconds = time.perf_counter() - self._began
        return AgentLabel(
            self.document.id,
            tuple(self.messages),
            self._reason,
            seconds=seconds,
            tool_errors=self._errors,
        )


def load_script(path: Path) -> TakeTurn:
    """Return the function `take_turn` of a Python file. Raise ConfigError where it has none."""
    try:
        source = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot read the script: {error_sentence(error)}"
        step = f"Name a Python file that defines {FUNCTION}(document, messages)."
        raise ConfigError(what, where=str(path), next_step=step) from None
    module = ModuleType(f"offapi_script_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        what = f"the script raised {error_sentence(error)}"
        raise ConfigError(what, where=str(path), next_step="Fix the script.") from error
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        step = f"Define {FUNCTION}(document, messages), which returns an offapi.tools.Turn or None."
        raise ConfigError(f"the script defines no {FUNCTION}.", where=str(path), next_step=step)
    take_turn: TakeTurn = function
    return take_turn
