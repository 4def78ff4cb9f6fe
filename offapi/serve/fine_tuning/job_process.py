"""One `offapi` command of a job: a process group that a killed server's successor can end.

The group holds a lock file, so its number is known to be its own as long as the lock is held. Left
out: which commands (`offapi.serve.fine_tuning.job_recipe`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import orjson

from offapi.errors import RunError
from offapi.files.lock import CannotLock, open_locked

LOCK, STDOUT, STDERR = "process.lock", "stdout.json", "stderr.txt"
OFFAPI = ("-P", "-c", "from offapi.cli import main; main()")
NICE = 10  # the server's answers come first
PATIENCE = 30.0  # seconds that a stopped command has to end by itself
BETWEEN_LOOKS = 0.05  # seconds


class JobProcess:
    """A command that runs in a job's folder. It is nice, and reads nothing."""

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        """Start `offapi WORDS`. Raise RunError where an earlier one still runs, and OSError."""
        self.folder = folder
        lock = open_locked(folder / LOCK)
        try:
            os.ftruncate(lock, 0)
            with _new(folder / STDOUT) as stdout, _new(folder / STDERR) as stderr:
                self._process = subprocess.Popen(
                    [sys.executable, *OFFAPI, *words],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
            os.pwrite(lock, str(self._process.pid).encode(), 0)
        finally:
            os.close(lock)  # the process has it still
        with suppress(OSError):
            os.setpriority(os.PRIO_PGRP, self._process.pid, NICE)

    def ended(self, seconds: float) -> bool:
        """Wait at most `seconds` for the end; return whether it has come."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return True
        return False

    @property
    def succeeded(self) -> bool:
        """Whether the ended command did what it should."""
        return self._process.returncode == 0

    def stop(self) -> None:
        """End the whole group: a training ends at a checkpoint that it can resume from."""
        _signal(self._process.pid, signal.SIGTERM)
        if not self.ended(PATIENCE):
            _signal(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def error(self) -> dict[str, str]:
        """Return why the command failed: code, message and next step."""
        lines = (self.folder / STDERR).read_bytes().splitlines()
        for line in reversed(lines):
            with suppress(orjson.JSONDecodeError):
                found = orjson.loads(line)
                if isinstance(found, dict) and "message" in found:
                    return {
                        name: str(found.get(name) or "") for name in ("code", "message", "next")
                    }
        how = f"The command ended with exit code {self._process.returncode}"
        if self._process.returncode < 0:
            how = f"The command was ended by signal {-self._process.returncode}"
        step = "Perhaps memory ran out: train with fewer or shorter examples, or a smaller model."
        return {"code": "unexpected", "message": f"{how}.", "next": step}


def end_leftover(folder: Path) -> None:
    """End the command that a killed server left running in a job's folder, and wait for its end."""
    until = time.monotonic() + PATIENCE
    asked = False
    while True:
        try:
            os.close(open_locked(folder / LOCK))
            return
        except CannotLock:
            raise
        except RunError:
            pid = (folder / LOCK).read_bytes()
        late = time.monotonic() > until
        if pid.isdigit() and (late or not asked):
            _signal(int(pid), signal.SIGKILL if late else signal.SIGTERM)
            asked = True
        time.sleep(BETWEEN_LOOKS)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _new(path: Path) -> BinaryIO:
    """Open an empty file of mode 0600."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
