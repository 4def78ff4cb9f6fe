"""The process that has loaded the task and forks the episodes', as its starter sees it.

It starts as the helpers of `offapi.workers.supervised` do. Left out: Windows.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from offapi.agent.episode_process import serve_episodes
from offapi.errors import ConfigError
from offapi.network.helper_log import Journal
from offapi.workers import spawn
from offapi.workers.group_reaper import GroupReaper
from offapi.workers.supervised import ending

PATIENCE = 10.0  # seconds that it has to end its episodes


class _Descriptor:
    """A descriptor that the process inherits."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        return _inherit, (DupFd(self._number),)


def _inherit(duplicate: Any) -> int:
    return int(duplicate.detach())


@contextmanager
def _same_hashes() -> Iterator[None]:
    """Start processes whose sets of texts have one order, so that a resumed run sees the same."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        yield
    finally:
        del os.environ["PYTHONHASHSEED"]
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before


class PreparedProcess:
    """The process, from its start on. Start it in a thread that lives as long as it is needed."""

    def __init__(self, task_file: Path, scratch: Path) -> None:
        context = mp.get_context("spawn")
        self.control, theirs = context.Pipe()
        self._where, self._journal, self._reaper = str(task_file), Journal(), GroupReaper(scratch)
        arguments = (theirs, _Descriptor(self._reaper.writing), self._journal, task_file, scratch)
        self._process = context.Process(target=serve_episodes, args=arguments, daemon=True)
        try:
            with _same_hashes():
                spawn.start(self._process, signal.SIGINT, signal.SIGTERM)
        except BaseException:
            self.end()
            raise
        theirs.close()
        self._reaper.hand_over()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid or 0

    def send(self, asked: object) -> None:
        """Send what it is to do; OSError where it has died."""
        self.control.send(asked)

    def take(self) -> Any:
        """Return what it says; ConfigError where it has ended."""
        try:
            return self.control.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            how = ending(self._process.exitcode)
            what = f"the process that holds the task's tools ended with {how}."
            step = "Run the task file in Python to see why."
            raise ConfigError(what, where=self._where, next_step=step) from None

    def end(self) -> None:
        """End it and all episodes, and take its journal; nothing is left when this returns."""
        self.control.close()
        if self._process.pid is not None:
            self._process.join(PATIENCE)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()
        self._reaper.wait()
        self._journal.close()
