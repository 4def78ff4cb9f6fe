"""The process that has loaded the task, and forks another for each episode.

It runs the user's code while it loads the task file, and afterwards only this file's: it forks,
ends and reaps. Left out: what a fork does (`offapi.agent.episode_life`), and Windows.
"""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from offapi.agent.episode_life import EpisodeHome, live_one_episode
from offapi.data.documents import Document
from offapi.errors import ConfigError, OffapiError
from offapi.network.helper_log import Journal
from offapi.task import Task, load_task
from offapi.tools.mcp_server import McpSource
from offapi.tools.offered import KnownTools, Schemas, schemas_by_source
from offapi.workers import spawn
from offapi.workers.supervised import leave_terminal

_ADOPT = 36  # PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True)
class ToolLimits:
    """What the loaded task says: the limits of its calls, and whether it has an environment."""

    tool_seconds: float
    max_tool_seconds: float
    environment: bool


@dataclass(frozen=True)
class BeginEpisode:
    """Fork the episode `number` of that document; its end of a socket pair follows."""

    number: int
    id: str
    text: str


@dataclass(frozen=True)
class EndEpisode:
    """End the episode `number` and all that it has started."""

    number: int


@dataclass(frozen=True)
class Over:
    """The answer to EndEpisode: how the episode's process ended, as `os.waitpid` has it."""

    number: int
    status: int


def serve_episodes(
    control: Connection, reaper: int, journal: Journal, task_file: Path, scratch: Path
) -> None:
    """Load the task, then open and end episodes until `control` ends."""
    journal.keep()
    leave_terminal()
    os.environ.pop("PYTHONHASHSEED", None)  # it has done its work; programs start without it
    starter = mp.parent_process()
    assert starter is not None
    assert starter.pid is not None
    spawn.end_with(starter.pid, starter.sentinel)
    try:
        task = load_task(task_file)
        schemas = _schemas(task)
        if isinstance(task.environment, KnownTools):
            task.environment.prepare(schemas)
    except OffapiError as error:
        with suppress(OSError):
            control.send(error)
        return
    if sys.platform == "linux":  # what leaves an episode's group is this process's to end
        ctypes.CDLL(None).prctl(_ADOPT, 1)
    limits = ToolLimits(task.tool_seconds, task.max_tool_seconds, task.environment is not None)
    home = EpisodeHome(task, schemas, task_file, scratch)
    with suppress(OSError):  # the starter has ended
        control.send(limits)
        try:
            _Forks(control, reaper, home).serve()
        except ConfigError as error:
            control.send(error)


def _schemas(task: Task) -> tuple[Schemas, ...]:
    """Return the tools' schemas, made in a process of their own: they take a large library.

    Its threads and its memory would otherwise be in every fork. An environment of the user's own
    says its tools itself.
    """
    known = task.environment if isinstance(task.environment, KnownTools) else None
    if task.environment is not None and known is None:
        return ()
    reader, writer = mp.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        sys.modules.setdefault("torch", cast(Any, None))  # no tensor is an argument: saves seconds
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it would miss torch
        try:
            writer.send(known.by_source() if known else schemas_by_source(task.tools))
        except OffapiError as error:
            writer.send(error)
        finally:
            os._exit(0)
    writer.close()
    for source in task.tools:
        if isinstance(source, McpSource):
            source.client()  # imports its library before the forks
    try:
        found = reader.recv()
    except EOFError:
        step = "Call `task.tool_schemas` in Python to see why."
        raise ConfigError("the tools' schemas cannot be made.", next_step=step) from None
    finally:
        os.waitpid(pid, 0)
        reader.close()
    if isinstance(found, OffapiError):
        raise found
    return tuple(found)


class _Forks:
    """The episodes' processes that live, by number."""

    def __init__(self, control: Connection, reaper: int, home: EpisodeHome) -> None:
        self._control, self._reaper, self._home = control, reaper, home
        self._live: dict[int, int] = {}
        self._before = set(_children())

    def serve(self) -> None:
        try:
            while True:
                try:
                    asked = self._control.recv()
                except EOFError:
                    return
                if isinstance(asked, BeginEpisode):
                    self._open(asked)
                elif isinstance(asked, EndEpisode):
                    self._control.send(Over(asked.number, self._end(asked.number)))
        finally:
            for number in list(self._live):
                self._end(number)

    def _open(self, asked: BeginEpisode) -> None:
        handle = reduction.recv_handle(self._control)
        try:
            pid = os.fork()
        except OSError as error:
            what = f"no process can be started for episode {len(self._live) + 1}: {error.strerror}."
            step = "Free memory, or raise the limit on processes (`ulimit -u`)."
            raise ConfigError(what, where=str(self._home.task_file), next_step=step) from None
        if pid == 0:
            self._control.close()
            os.close(self._reaper)
            live_one_episode(self._home, Document(asked.id, asked.text), Connection(handle))
        os.close(handle)
        os.write(self._reaper, b"+%d\n" % pid)
        self._live[asked.number] = pid

    def _end(self, number: int) -> int:
        pid = self._live.pop(number)
        with suppress(ProcessLookupError, PermissionError):  # it may lead no group yet
            os.killpg(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.write(self._reaper, b"-%d\n" % pid)
        self._end_strays()
        shutil.rmtree(self._home.scratch / str(pid), ignore_errors=True)
        return status

    def _end_strays(self) -> None:
        """End what ended episodes had moved into sessions of their own (Linux alone)."""
        for _ in range(100):  # each may leave children of its own
            kept = self._before | set(self._live.values())
            strays = [pid for pid in _children() if pid not in kept and not self._lives(pid)]
            if not strays:
                return
            for pid in strays:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _lives(self, pid: int) -> bool:
        with suppress(OSError):
            return os.getsid(pid) in self._live.values()
        return False


def _children() -> list[int]:
    """Return this process's children, where the system lists them."""
    with suppress(OSError):
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
        return [int(pid) for pid in listed.split()]
    return []
