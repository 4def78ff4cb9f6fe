"""One episode's process: the fork in which its environment lives, and what it is asked.

Messages between it and the trainer are JSON, so that nothing a tool returns is executed. What is
random starts the same for each document, so that a run that is resumed sees what it saw. Left out:
the process's end, which is its starter's.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import orjson

from offapi.agent.messages import read_turn, write_observation
from offapi.data.documents import Document
from offapi.errors import ConfigError, OffapiError, error_sentence
from offapi.task import Task
from offapi.tools.environment import Environment
from offapi.tools.offered import Schemas
from offapi.tools.results import cut_messages
from offapi.tools.tool_environment import ToolEnvironment

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class EpisodeHome:
    """What all episodes are made from."""

    task: Task
    schemas: tuple[Schemas, ...]  # by source
    task_file: Path
    scratch: Path


def live_one_episode(home: EpisodeHome, document: Document, pipe: Connection) -> NoReturn:
    """Be the process of the episode of `document` until it is over."""
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        folder = home.scratch / str(os.getpid())  # also of temporary files; removed at the end
        folder.mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        _start_randomness(document.id)
        _Episode(home, pipe).live(document)
    finally:
        os._exit(0)


def _start_randomness(name: str) -> None:
    random.seed(name)
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed(zlib.crc32(name.encode()))


class _Episode:
    """One episode in its process: what it is sent, and what it answers."""

    def __init__(self, home: EpisodeHome, pipe: Connection) -> None:
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
