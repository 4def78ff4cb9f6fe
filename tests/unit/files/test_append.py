"""Appending: a whole line or nothing."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import disk_faults
import pytest

from offapi.errors import RunError
from offapi.files.append import append_or_refuse, append_whole, refused


@contextmanager
def opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the kernel write the bytes up to `size` and refuse the others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_data_lands_at_the_end_wherever_the_file_stands(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n")
    with opened(tmp_path / "log") as file:
        append_whole(file, b"two\n")
        os.lseek(file, 0, os.SEEK_SET)
        append_whole(file, b"three\n", sync=True)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n"


def test_a_line_cut_short_by_the_disk_leaves_no_part(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as file:
        append_whole(file, b"one\n")
        with largest_file(4096), pytest.raises(OSError, match="too large"):
            append_whole(file, b"x" * 5000)
        append_whole(file, b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_line_that_did_not_reach_the_disk_is_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "log") as file:
        with disk_faults.fail_at(1, "fsync", errno.EIO), pytest.raises(OSError, match="error"):
            append_whole(file, b"one\n", sync=True)
        append_whole(file, b"two\n", sync=True)
    assert (tmp_path / "log").read_bytes() == b"two\n"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
    with opened(tmp_path / "log") as file:
        append_whole(file, b"a whole line\n")
    assert (tmp_path / "log").read_bytes() == b"a whole line\n"


def test_a_refusal_names_the_file_and_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with (
        opened(path) as file,
        disk_faults.fail_at(1, "write", errno.ENOSPC),
        pytest.raises(RunError, match="cannot be written: No space left") as caught,
    ):
        append_or_refuse(file, b"one\n", path)
    assert caught.value.where == str(path)
    assert "Free some space" in caught.value.next_step


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EDQUOT, "Free some space"),
        (errno.EACCES, "Make the folder writable"),
        (errno.EINVAL, "a folder on a local disk"),
        (errno.ENOLCK, "a folder on a local disk"),
        (errno.EXDEV, "a single file system"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_the_advice_fits_the_refusal(tmp_path: Path, number: int, said: str) -> None:
    error = refused(OSError(number, os.strerror(number)), tmp_path / "log")
    assert said in error.next_step
    assert ("Free some space" in error.next_step) is (number == errno.EDQUOT)
