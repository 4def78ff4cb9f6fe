"""Whole or not at all: the write protocol against kills, disk errors and damage."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from pathlib import Path

import disk_faults
import pytest

from offapi.files import atomic

FILES = {"adapter.safetensors": b"weights" * 30, "adapter_config.json": b'{"r": 4}', "empty": b""}
META = {"step": 10, "seed": 3, "loss": 0.1}


def test_folder_comes_back_as_written(tmp_path: Path) -> None:
    atomic.write_folder(tmp_path / "a", FILES, META)
    assert atomic.verify(tmp_path / "a") == META
    assert {
        p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.name != atomic.MANIFEST
    } == FILES
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a").iterdir()} == {0o600}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    atomic.write_file(path, b"new" * 1000)
    assert path.read_bytes() == b"new" * 1000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "manifest.json", ".."])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        atomic.write_folder(tmp_path / "a", {name: b""}, {})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    atomic.write_folder(tmp_path / "a", FILES, META)
    with pytest.raises(atomic.NotCommitted):
        atomic.write_folder(tmp_path / "a", {"other": b"x"}, {})
    assert atomic.verify(tmp_path / "a") == META
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_every_flipped_bit_and_lost_tail_is_noticed(tmp_path: Path) -> None:
    good = tmp_path / "a"
    atomic.write_folder(good, FILES, META)
    for path in sorted(good.iterdir()):
        data = path.read_bytes()
        for index in range(len(data)):
            path.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
            with pytest.raises(atomic.Damaged):
                atomic.verify(good)
        for length in {
            length for length in (0, 1, len(data) // 2, len(data) - 1) if 0 <= length < len(data)
        }:
            path.write_bytes(data[:length])
            with pytest.raises(atomic.Damaged):
                atomic.verify(good)
        path.unlink()
        with pytest.raises(atomic.Damaged):
            atomic.verify(good)
        path.write_bytes(data)
    assert atomic.verify(good) == META


def test_killed_at_every_operation_a_file_is_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    total = disk_faults.count(lambda: atomic.write_file(tmp_path / "dry", b"new"))
    outcomes = []
    for n in range(1, total + 2):
        path.write_bytes(b"old")
        assert disk_faults.kill_at(n, lambda: atomic.write_file(path, b"new")) == (n <= total)
        outcomes.append(path.read_bytes())
    assert set(outcomes) == {b"old", b"new"}
    assert outcomes == sorted(outcomes, reverse=True), "once new, never old again"


@pytest.mark.parametrize("eager_names", [True, False])
def test_a_power_cut_anywhere_leaves_old_or_new(tmp_path: Path, eager_names: bool) -> None:
    live = tmp_path / "live"
    live.mkdir()
    (live / "f").write_bytes(b"old")
    operations = disk_faults.record(lambda: atomic.write_file(live / "f", b"new"))
    for cut in range(len(operations) + 1):
        left = tmp_path / f"cut-{cut}"
        left.mkdir()
        (left / "f").write_bytes(b"old")
        disk_faults.replay(disk_faults.after_power_cut(operations[:cut], eager_names), live, left)
        assert (left / "f").read_bytes() in (
            {b"new"} if cut == len(operations) else {b"old", b"new"}
        )


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", ["open", "write", "fsync", "mkdir", "rename"])
def test_errors_before_the_rename_leave_nothing(tmp_path: Path, operation: str, error: int) -> None:
    calls = []
    with disk_faults.watching(lambda name, *_: calls.append(name)):
        atomic.write_folder(tmp_path / "dry", FILES, META)
    shutil.rmtree(tmp_path / "dry")
    late = 1 if operation in ("open", "fsync") else 0  # the parent folder's, after the rename
    for n in range(1, calls.count(operation) + 1 - late):
        with disk_faults.fail_at(n, operation, error), pytest.raises(atomic.NotCommitted) as caught:
            atomic.write_folder(tmp_path / "a", FILES, META)
        assert os.strerror(error) in caught.value.what
        assert caught.value.next_step
        assert list(tmp_path.iterdir()) == []


def test_an_error_after_the_rename_is_uncertain(tmp_path: Path) -> None:
    syncs = len(FILES) + 3  # files, manifest, folder, parent
    with disk_faults.fail_at(syncs, "fsync", errno.EIO), pytest.raises(atomic.DurabilityUncertain):
        atomic.write_folder(tmp_path / "a", FILES, META)
    assert atomic.verify(tmp_path / "a") == META


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    atomic.write_folder(tmp_path / "a", FILES, META)
    assert atomic.verify(tmp_path / "a") == META


def test_a_file_size_limit_is_a_clear_error(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(atomic.NotCommitted, match=r"[Ff]ile too large"):
            atomic.write_folder(tmp_path / "a", {"small": b"x", "big": b"x" * 10_000}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_appears_filled_or_not_at_all(tmp_path: Path) -> None:
    with atomic.new_folder(tmp_path / "a") as folder:
        (folder / "f").write_bytes(b"x")
        assert not (tmp_path / "a").exists()
        assert folder.name.startswith(".tmp-a-")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "f").read_bytes() == b"x"

    def interrupted() -> None:
        with atomic.new_folder(tmp_path / "b", tmp_path / ".tmp-b") as folder:
            assert folder == tmp_path / ".tmp-b"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    atomic.write_folder(tmp_path / "a", FILES, META)
    atomic.write_folder(tmp_path / "a", {"other": b"x"}, {"step": 11}, replace=True)
    assert atomic.verify(tmp_path / "a") == {"step": 11}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"other", atomic.MANIFEST}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_missing_parent_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(atomic.NotCommitted, match="No such file"):
        atomic.write_folder(tmp_path / "missing" / "a", FILES, META)
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import os
from pathlib import Path
from offapi.files import atomic
try:
    atomic.write_folder(Path("new"), {"big": os.urandom(200_000)}, {})
except atomic.NotCommitted as error:
    print(error.code, "|", error, "|", sorted(os.listdir(".")))
"""


def test_a_full_disk_is_a_clear_error() -> None:
    done = disk_faults.on_small_disk(SCRIPT)
    assert "No space left" in done.stdout, done.stderr
    assert "Free some space" in done.stdout
    assert done.stdout.strip().endswith("| []")


def test_a_read_only_disk_is_a_clear_error() -> None:
    done = disk_faults.on_small_disk(SCRIPT, mode="ro")
    assert "Read-only file system" in done.stdout, done.stderr
    assert "writable" in done.stdout
    assert done.stdout.strip().endswith("| []")
