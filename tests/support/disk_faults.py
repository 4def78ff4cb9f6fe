"""Faults for tests: kills at the n-th file operation, power cuts, tiny and read-only disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPERATIONS = (
    "open",
    "write",
    "fsync",
    "mkdir",
    "rename",
    "replace",
    "unlink",
    "rmdir",
    "ftruncate",
    "truncate",
)


@contextmanager
def watching(before: Callable[[str, tuple[Any, ...], dict[str, Any]], None]) -> Iterator[None]:
    """Call `before(name, args, kwargs)` before every file operation of `os` in this process."""
    real = {name: getattr(os, name) for name in OPERATIONS}

    def watched(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before(name, args, kwargs)
            return real[name](*args, **kwargs)

        return call

    for name in OPERATIONS:
        setattr(os, name, watched(name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def count(action: Callable[[], object]) -> int:
    """Return how many file operations `action` makes."""
    seen: list[str] = []
    with watching(lambda name, *_: seen.append(name)):
        action()
    return len(seen)


def kill_at(n: int, action: Callable[[], object]) -> bool:
    """Run `action` in a forked child that is killed before its n-th file operation.

    Return whether it was killed.
    """
    child = os.fork()
    if child == 0:
        left = n

        def tick(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with watching(tick):
                action()
            os._exit(0)
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


def fail_at(n: int, name: str, error: int) -> Any:
    """Return a context in which the n-th `os.<name>` raises OSError(error)."""
    left = n

    def tick(called: str, *_: object) -> None:
        nonlocal left
        left -= called == name
        if called == name and left == 0:
            raise OSError(error, os.strerror(error))

    return watching(tick)


Operation = tuple[str, Path, Any]  # name, path, and the bytes of a write or the target of a rename


def record(action: Callable[[], object]) -> list[Operation]:
    """Return every change that `action` makes to files, in order, with paths as they were then."""
    paths: dict[int, Path] = {}
    operations: list[Operation] = []
    real_open = os.open

    def path_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
        folder = kwargs.get("dir_fd")
        return paths[folder] / os.fspath(args[0]) if folder is not None else Path(args[0])

    def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "open":
            if len(args) > 1 and args[1] & os.O_CREAT and not path_of(args, kwargs).exists():
                operations.append(("create", path_of(args, kwargs), None))
        elif name in ("write", "fsync"):
            operations.append((name, paths[args[0]], bytes(args[1]) if name == "write" else None))
        elif name in ("rename", "replace"):
            operations.append(("rename", Path(args[0]), Path(args[1])))
        else:
            assert not isinstance(args[0], int), f"{name} by descriptor is not modelled"
            operations.append((name, path_of(args, kwargs), None))

    with watching(note):
        watched_open = os.open

        def remembering(*args: Any, **kwargs: Any) -> int:
            path = path_of(args, kwargs)
            descriptor: int = watched_open(*args, **kwargs)
            paths[descriptor] = path
            return descriptor

        os.open = remembering
        try:
            action()
        finally:
            os.open = real_open
    return operations


def after_power_cut(operations: list[Operation], eager_names: bool) -> Iterator[Operation]:
    """Yield what of `operations` may remain when the power fails after the last of them.

    Data that was not fsynced is lost. Names survive only if their folder was fsynced, or, with
    `eager_names`, at once: real file systems do either.
    """
    for index, (name, path, value) in enumerate(operations):
        later = {where for what, where, _ in operations[index + 1 :] if what == "fsync"}
        if name == "fsync":
            continue
        durable = path in later if name == "write" else eager_names or path.parent in later
        if durable:
            yield name, path, value


def replay(operations: Iterator[Operation], source: Path, target: Path) -> None:
    """Apply operations recorded in `source` to `target`.

    Those whose folder did not survive are skipped.
    """

    def moved(path: Path) -> Path:
        return target / path.relative_to(source)

    for name, path, value in operations:
        where = moved(path)
        if name in ("mkdir", "create") and where.parent.is_dir():
            where.mkdir() if name == "mkdir" else where.touch()
        elif name == "write" and where.exists():
            where.write_bytes(where.read_bytes() + value)
        elif name == "rename" and where.exists():
            where.rename(moved(value))
        elif name == "unlink":
            where.unlink(missing_ok=True)
        elif name == "rmdir" and where.is_dir():
            shutil.rmtree(where)


def on_small_disk(
    script: str, size: str = "64k", mode: str = "rw"
) -> subprocess.CompletedProcess[str]:
    """Run Python code whose working folder is a new tmpfs of `size`.

    The test is skipped where mounting is refused.
    """
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed: no private mount possible")
    mount = (
        f"mount -t tmpfs -o size={size} tmpfs /mnt && mkdir /mnt/there && mount -o remount,{mode}"
        " /mnt"
    )
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this system refuses a private tmpfs mount")
    run = 'cd /mnt/there && exec "$0" -c "$1"'
    command = ["unshare", "-rm", "sh", "-c", f"{mount} && {run}", sys.executable, script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
