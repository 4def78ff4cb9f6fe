"""The processes in which environments live: one that has loaded the task, and a fork an episode.

The prepared process runs the user's code while it loads the task file, and afterwards only this
file's: it forks, ends and reaps. An episode's process leads a session of its own. Messages between
it and the trainer are JSON, so that nothing a tool returns is executed. Left out: Windows.
"""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, cast

import orjson

from offapi.agent.messages import read_turn, write_observation
from offapi.data.documents import Document
from offapi.errors import ConfigError, OffapiError, error_sentence
from offapi.network.helper_log import Journal
from offapi.task import Task, load_task
from offapi.tools.environment import Environment
from offapi.tools.mcp_server import McpSource
from offapi.tools.offered import KnownTools, Schemas, schemas_by_source
from offapi.tools.results import cut_messages
from offapi.tools.tool_environment import ToolEnvironment
from offapi.workers import spawn
from offapi.workers.supervised import leave_terminal

_ADOPT = 36  # PR_SET_CHILD_SUBREAPER
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


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
    home = _Home(task, schemas, task_file, scratch)
    with suppress(EOFError, OSError):
        control.send(limits)
        _Forks(control, reaper, home).serve()


@dataclass(frozen=True)
class _Home:
    """What all episodes are made from."""

    task: Task
    schemas: tuple[Schemas, ...]  # by source
    task_file: Path
    scratch: Path


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

    def __init__(self, control: Connection, reaper: int, home: _Home) -> None:
        self._control, self._reaper, self._home = control, reaper, home
        self._live: dict[int, int] = {}
        self._before = set(_children())

    def serve(self) -> None:
        try:
            while True:
                asked = self._control.recv()
                if isinstance(asked, BeginEpisode):
                    self._open(asked)
                elif isinstance(asked, EndEpisode):
                    self._control.send(Over(asked.number, self._end(asked.number)))
        finally:
            for number in list(self._live):
                self._end(number)

    def _open(self, asked: BeginEpisode) -> None:
        handle = reduction.recv_handle(self._control)
        pid = os.fork()
        if pid == 0:
            self._control.close()
            os.close(self._reaper)
            _live_one_episode(self._home, asked, Connection(handle))
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


def _live_one_episode(home: _Home, asked: BeginEpisode, pipe: Connection) -> NoReturn:
    """Be the episode's process."""
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        folder = home.scratch / str(os.getpid())  # also of temporary files; removed at the end
        folder.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        random.seed(0)
        _Episode(home, pipe).live(Document(asked.id, asked.text))
    finally:
        os._exit(0)


class _Episode:
    """One episode in its process: what it is sent, and what it answers."""

    def __init__(self, home: _Home, pipe: Connection) -> None:
        self._home, self._pipe, self._pid = home, pipe, os.getpid()

    def live(self, document: Document) -> None:
        self._send({"pid": self._pid})
        try:
            environment = self._make()
            self._send({"opened": list(environment.reset(document))})
            while "step" in (asked := self._receive()):
                self._send({"observation": self._step(environment, asked["step"])})
            score = environment.score(asked["close"])
            environment.close()
            self._send({"closed": None if score is None else float(score)})
        except BaseException as error:  # SystemExit too
            self._fault(error)

    def _make(self) -> Environment:
        task, schemas = self._home.task, self._home.schemas
        if task.environment is not None:
            return task.environment()
        return ToolEnvironment(
            task.tools,
            schemas,
            seconds=task.tool_seconds,
            base=self._home.task_file.parent,
            on_call=self._on_call,
        )

    def _step(self, environment: Environment, asked: Any) -> Mapping[str, Any]:
        turn, started = read_turn(asked), time.perf_counter()
        try:
            observation = environment.step(turn)
        except ConfigError:
            raise
        except BaseException as error:  # SystemExit too
            return {"raised": error_sentence(error), "seconds": time.perf_counter() - started}
        if not observation.seconds:
            observation = replace(observation, seconds=time.perf_counter() - started)
        if self._home.task.environment is not None:  # plain tools' results are cut already
            observation = replace(observation, messages=cut_messages(observation.messages))
        return write_observation(observation)

    def _on_call(self, place: int, result: tuple[Mapping[str, Any], bool] | None) -> None:
        self._send({"call": place} if result is None else {"call": place, "result": result})

    def _fault(self, error: BaseException) -> None:
        """Say that the task is at fault: its code, not what the model made of it."""
        if isinstance(error, OffapiError):
            self._send({"fault": [error.what, error.where, error.next_step]})
            return
        step = "Fix it; what a model does must not end an episode in an error."
        where = str(self._home.task_file)
        self._send({"fault": [f"the environment raised {error_sentence(error)}", where, step]})

    def _receive(self) -> Any:
        try:
            return orjson.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)  # the trainer has ended the episode

    def _send(self, message: Mapping[str, Any]) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a tool forked, and its child came back from the call
        data = orjson.dumps(message)
        try:
            self._pipe.send_bytes(data)
        except OSError:
            os._exit(0)
