"""The environments of many episodes, each in a process of its own, as one thing to ask and poll.

What a tool does to its process is an observation: a hang, a crash, too much memory. The episode's
tools are gone then, and later calls answer so. Left out: how an environment is run
(`offapi.agent.episode_process`), and the limit on an episode's tool seconds.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import orjson

from offapi.agent.episode_process import BeginEpisode, EndEpisode, Over, ToolLimits
from offapi.agent.messages import read_observation, write_turn
from offapi.agent.open_episode import Closed, Opened, OpenEpisode, how_it_ended
from offapi.agent.prepared_process import PreparedProcess
from offapi.data.documents import Document
from offapi.errors import ConfigError, OffapiError
from offapi.task.task import Message
from offapi.tools.calls import Observation, Turn
from offapi.workers.supervised import POLL, most_memory

__all__ = ["Closed", "EpisodeHost", "Opened"]

GRACE = 0.5  # seconds beyond a call's limit: an async call is ended in its process first
LARGEST = 64 << 20  # bytes of one message of an episode's process
Key = Hashable
Reply = Opened | Observation | Closed


class EpisodeHost:
    """The episodes of one task, each with a key. Use it in a `with` block.

    Each of `open`, `step` and `close` gets one reply, which `poll` or `wait` returns. Those raise
    ConfigError where the task is at fault: its file does not load, or its environment raises.
    """

    def __init__(self, task_file: Path) -> None:
        self._task_file = task_file
        self._episodes: dict[Key, OpenEpisode] = {}
        self._ending: dict[int, OpenEpisode] = {}
        self._ready: deque[tuple[Key, Reply]] = deque()
        self._number, self._looked = 0, 0.0
        self._limits = ToolLimits(1.0, 1.0, False)  # until the task is loaded

    def __enter__(self) -> EpisodeHost:
        self._scratch = Path(tempfile.mkdtemp(prefix="offapi-episodes-"))
        self._process = PreparedProcess(self._task_file, self._scratch)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.end()
        for episode in [*self._episodes.values(), *self._ending.values()]:
            episode.pipe.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def open(self, key: Key, document: Document) -> None:
        """Begin the episode `key`; the document's gold is withheld. The reply is an Opened."""
        if key in self._episodes:
            raise ValueError(f"the episode {key!r} is open")
        ours, theirs = socket.socketpair()
        self._number += 1
        pipe = Connection(ours.detach())
        self._episodes[key] = OpenEpisode(key, self._number, pipe)
        with suppress(OSError), theirs:  # if the process has died, `poll` finds out
            self._process.send(BeginEpisode(self._number, document.id, document.text))
            reduction.send_handle(self._process.control, theirs.fileno(), self._process.pid)

    def step(self, key: Key, turn: Turn) -> None:
        """Answer `turn` of the episode `key`. The reply is an Observation."""
        episode = self._episodes[key]
        if episode.gone:
            self._ready.append((key, episode.without_tools(turn)))
            return
        calls = max(1, len(turn.calls)) if self._limits.environment else 1
        episode.ask_step(turn, self._limits.tool_seconds * calls + GRACE)
        self._say(episode, {"step": write_turn(turn)})

    def close(self, key: Key, messages: Sequence[Message]) -> None:
        """End the episode `key`, whose whole chat is `messages`. The reply is a Closed.

        A reply that the episode still owes is dropped.
        """
        episode = self._episodes[key]
        if episode.gone:
            self._closed(episode, self._score_of_lost())
        elif episode.asked:
            episode.asked = "close"
            self._end(episode, "was ended")
        else:
            episode.asked = "close"
            episode.deadline = time.monotonic() + self._limits.max_tool_seconds
            self._say(episode, {"close": list(messages)})

    def poll(self, seconds: float = 0.0) -> list[tuple[Key, Reply]]:
        """Return the replies that are there; wait at most `seconds` for the first."""
        until = time.monotonic() + seconds
        while True:
            left = 0.0 if self._ready else max(0.0, until - time.monotonic())
            self._listen(min(left, POLL))
            self._enforce()
            if self._ready or time.monotonic() >= until:
                replies = list(self._ready)
                self._ready.clear()
                return replies

    def wait(self, keys: Collection[Key]) -> list[tuple[Key, Reply]]:
        """Return the replies of `keys`, one each, once all are there; keep those of others."""
        missing = set(keys)
        found: list[tuple[Key, Reply]] = []
        others: list[tuple[Key, Reply]] = []
        while missing:
            for key, reply in self.poll(POLL):
                (found if key in missing else others).append((key, reply))
                missing.discard(key)
        self._ready.extendleft(reversed(others))
        return found

    def _listen(self, seconds: float) -> None:
        """Take what has come within `seconds`."""
        busy = {
            episode.pipe: episode
            for episode in self._episodes.values()
            if episode.asked and not episode.ending and not episode.gone
        }
        control = self._process.control
        ready = wait([control, *busy], timeout=seconds)
        if control in ready:  # first: it says the limits
            self._take_control()
        for pipe, episode in busy.items():
            if pipe in ready and not episode.ending:
                self._take(episode)

    def _take_control(self) -> None:
        said = self._process.take()
        if isinstance(said, OffapiError):
            raise said
        if isinstance(said, ToolLimits):
            self._limits = said
        elif isinstance(said, Over) and (episode := self._ending.pop(said.number, None)):
            self._over(episode, said.status)

    def _take(self, episode: OpenEpisode) -> None:
        try:
            said: Any = orjson.loads(episode.pipe.recv_bytes(LARGEST))
        except (EOFError, OSError):
            self._end(episode, "")
            return
        except orjson.JSONDecodeError:
            self._end(episode, "sent what is not an answer")
            return
        if "fault" in said:
            what, where, next_step = said["fault"]
            del self._episodes[episode.key]
            self._end(episode, "")
            raise ConfigError(what, where=where, next_step=next_step)
        if "pid" in said:
            episode.pid = said["pid"]
            episode.deadline = time.monotonic() + self._limits.max_tool_seconds
        elif "call" in said:
            episode.hear_call(said, self._limits.tool_seconds + GRACE)
        elif "closed" in said:
            self._closed(episode, said["closed"])
            self._end(episode, "")
        else:
            self._reply(episode, said)

    def _reply(self, episode: OpenEpisode, said: dict[str, Any]) -> None:
        episode.asked = episode.deadline = None
        if "opened" in said:
            self._ready.append((episode.key, Opened(tuple(said["opened"]))))
            return
        step = said["observation"]
        raised = "raised" in step
        observation = (
            episode.raised(step["raised"], step["seconds"]) if raised else read_observation(step)
        )
        self._ready.append((episode.key, observation))

    def _enforce(self) -> None:
        """End the processes that take too long, and the largest where they use too much memory."""
        now = time.monotonic()
        for episode in [*self._episodes.values()]:
            late = episode.deadline is not None and now > episode.deadline
            if late and not episode.ending and not episode.gone:
                seconds = self._limits.max_tool_seconds
                if episode.asked == "step":
                    seconds = self._limits.tool_seconds
                self._end(episode, f"took more than {seconds:g} seconds and was ended")
        if now - self._looked < POLL:
            return
        self._looked = now
        used = {episode.key: _memory(episode.pid) for episode in self._living()}
        if sum(used.values()) > most_memory():
            key = max(used, key=lambda each: used[each])
            why = f"used {used[key] / 1e9:.1f} GB of memory, {most_memory() / 1e9:.1f} are allowed"
            self._end(self._episodes[key], why)

    def _living(self) -> list[OpenEpisode]:
        return [each for each in self._episodes.values() if each.pid and not each.ending]

    def _end(self, episode: OpenEpisode, why: str) -> None:
        """Have the episode's process ended; `_over` says what that means."""
        episode.ending, episode.why = True, why
        self._ending[episode.number] = episode
        with suppress(OSError):
            self._process.send(EndEpisode(episode.number))

    def _over(self, episode: OpenEpisode, status: int) -> None:
        episode.pipe.close()
        if self._episodes.get(episode.key) is not episode:
            return  # it was closed
        episode.gone = episode.why or how_it_ended(status)
        asked, episode.asked, episode.deadline = episode.asked, None, None
        if asked == "open":
            what = f"the environment's reset {episode.gone}."
            step = "Fix the environment; max_tool_seconds is its limit."
            raise ConfigError(what, where=str(self._task_file), next_step=step)
        if asked == "step":
            self._ready.append((episode.key, episode.lost()))
        elif asked == "close":
            self._closed(episode, self._score_of_lost())

    def _closed(self, episode: OpenEpisode, score: float | None) -> None:
        del self._episodes[episode.key]
        self._ready.append((episode.key, Closed(score)))

    def _score_of_lost(self) -> float | None:
        """Return 0 for an environment that ended: to break it must not pay."""
        return 0.0 if self._limits.environment else None

    def _say(self, episode: OpenEpisode, message: dict[str, Any]) -> None:
        with suppress(OSError):  # if it has died, `poll` finds out
            episode.pipe.send_bytes(orjson.dumps(message))


def _memory(pid: int) -> int:
    """Return the bytes that the process uses; 0 where it has ended."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
