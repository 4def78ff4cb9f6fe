"""Locks between processes: the holder is named, and any end of it releases the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from offapi.errors import RunError
from offapi.files.lock import hold, open_locked, wait_for


@contextmanager
def elsewhere(code: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `code`, which prints a line once it holds the lock, in a process; kill it at the end."""
    script = f"import sys\nfrom pathlib import Path\nfrom offapi.files import lock\n{code}"
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        try:
            yield other
        finally:
            other.kill()


READY = "print('ready', flush=True); sys.stdin.read()"
HOLD = f"with lock.hold(Path(sys.argv[1]), 'this run', 'there'): {READY}"
OPEN = f"file = lock.open_locked(Path(sys.argv[1])); {READY}"
WAIT = f"with lock.wait_for(Path(sys.argv[1])): {READY}"


def test_the_holder_is_named_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with elsewhere(HOLD, file) as other:
        message = f"this run is being written by process {other.pid}."
        with pytest.raises(RunError, match=message) as caught, hold(file, "this run", "there"):
            pass
        assert caught.value.where == "there"
        other.kill()
        with hold(file, "this run", "there", seconds=30):
            assert file.read_text() == f"process {os.getpid()}"


def test_only_one_process_opens_a_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    with elsewhere(OPEN, path), pytest.raises(RunError, match="another process is writing"):
        open_locked(path)
    file = open_locked(path, os.O_APPEND)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.close(file)


def test_an_unopenable_path_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_locked(tmp_path / "missing" / "labels.jsonl")


def test_the_second_process_waits(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with wait_for(file):
        script = f"from pathlib import Path\nfrom offapi.files import lock\nimport sys\n{WAIT}"
        second = subprocess.Popen(
            [sys.executable, "-c", script, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(2)
    assert second.communicate(b"")[0] == b"ready\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "file"
    before = len(os.listdir("/dev/fd"))
    for lock in (lambda: open_locked(path), hold(path, "this", "there").__enter__):
        with pytest.raises(RunError, match="cannot be locked") as caught:
            lock()
        assert caught.value.where == str(path)
        assert "local disk" in caught.value.next_step
    with pytest.raises(RunError, match="cannot be locked"), wait_for(path):
        pass
    assert len(os.listdir("/dev/fd")) == before


def test_a_lock_file_that_may_not_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match="cannot be locked") as caught, hold(tmp_path, "this", "it"):
        pass
    assert "writable" in caught.value.next_step
