"""A resumable output file: what a kill, a full disk, Ctrl-C and another process leave of it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import disk_faults
import orjson
import pytest

from offapi.errors import RunError
from offapi.files import atomic
from offapi.files import staged as stage
from offapi.files.staged import Stage

KEY, START = {"input": "a", "options": [1, 2]}, {"at": 0}
BATCHES = [f"batch {i} {'x' * i}\n".encode() for i in range(6)]
WHOLE = b"".join(BATCHES)


class Stopped(Exception):
    """A simulated power cut."""


@pytest.fixture(autouse=True)
def journal_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SECONDS_BETWEEN_JOURNALS", 0.0)


def make(out: Path, stop: int | None = None, key: Mapping[str, Any] = KEY) -> bool:
    """Write or resume the file and stop before batch `stop`; return whether it was resumed."""
    with Stage(out, key, START) as staged:
        for i in range(staged.state["at"], len(BATCHES)):
            if i == stop:
                raise Stopped
            staged.append(BATCHES[i], {"at": i + 1})
        staged.finish()
    return staged.resumed


def half(out: Path, batches: int = 3) -> None:
    with pytest.raises(Stopped):
        make(out, batches)


def test_a_file_has_its_name_only_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "out"
    half(out)
    assert not out.exists()
    assert make(out)
    assert out.read_bytes() == WHOLE
    assert list(out.parent.iterdir()) == [out]
    assert not make(out)  # a finished file is not resumed


def test_other_inputs_start_anew(tmp_path: Path) -> None:
    half(tmp_path / "out")
    assert not make(tmp_path / "out", key={**KEY, "input": "b"})
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_the_journal_of_other_inputs_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half(tmp_path / "out")
    monkeypatch.setattr(stage, "SECONDS_BETWEEN_JOURNALS", 1e9)
    killed = disk_faults.kill_at(9, lambda: make(tmp_path / "out", key={**KEY, "input": "b"}))
    assert killed
    assert (tmp_path / "out.part").stat().st_size > sum(map(len, BATCHES[:3]))
    assert not make(tmp_path / "out")


@pytest.mark.parametrize("stop", range(1, 6))
def test_what_the_journal_does_not_count_is_cut_off(tmp_path: Path, stop: int) -> None:
    half(tmp_path / "out", stop)
    with (tmp_path / "out.part").open("ab") as file:
        file.write(b"half a batch, written just before the power went")
    assert make(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


JOURNALS = {
    "none": None,
    "cut": b'{"key":',
    "a list": b"[]",
    "without size": orjson.dumps({"key": KEY, "state": {"at": 3}}),
    "size as text": orjson.dumps({"key": KEY, "size": "9", "state": {"at": 3}}),
    "of nothing": orjson.dumps({"key": KEY, "size": 0, "state": {"at": 3}}),
    "of more than is there": orjson.dumps({"key": KEY, "size": 10_000, "state": {"at": 3}}),
}


@pytest.mark.parametrize("journal", JOURNALS.values(), ids=list(JOURNALS))
def test_a_damaged_journal_starts_anew(tmp_path: Path, journal: bytes | None) -> None:
    half(tmp_path / "out")
    path = tmp_path / "out.part.json"
    path.unlink() if journal is None else path.write_bytes(journal)
    assert not make(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_kill_at_any_operation_loses_nothing(tmp_path: Path) -> None:
    """Kill before the first, second ... operation; each time, resuming gives the same bytes."""
    killed = 0
    while disk_faults.kill_at(killed + 1, lambda: make(tmp_path / str(killed) / "out")):  # noqa: B023 -- called at once
        out = tmp_path / str(killed) / "out"
        if not out.exists():
            make(out)
        assert out.read_bytes() == WHOLE
        assert not out.with_name("out.part").exists()
        killed += 1
    assert killed > 3 * len(BATCHES)


def test_repeated_kills_still_reach_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kills = 0
    while disk_faults.kill_at(12, lambda: make(out)):
        kills += 1
        assert kills < 50
    assert out.read_bytes() == WHOLE
    assert kills > 1


def test_the_journal_counts_only_what_is_on_the_disk(tmp_path: Path) -> None:
    """Everything written is synced before a journal or the file is renamed into place."""
    unsynced: set[int] = set()
    renamed: list[str] = []

    def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "write":
            unsynced.add(args[0])
        elif name == "fsync":
            unsynced.discard(args[0])
        elif name in ("rename", "replace"):
            renamed.append(Path(args[1]).name)
            assert not unsynced

    with disk_faults.watching(note):
        make(tmp_path / "out")
    assert renamed == ["out.part.json"] * len(BATCHES) + ["out"]


@pytest.mark.parametrize("n", [1, 3, 5, 9])
def test_a_full_disk_says_what_to_do_and_is_resumed(tmp_path: Path, n: int) -> None:
    with (
        disk_faults.fail_at(n, "write", errno.ENOSPC),
        pytest.raises(RunError, match=r"[Ff]ree some space"),
    ):
        make(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    make(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_an_empty_unfinished_file_is_removed(tmp_path: Path) -> None:
    half(tmp_path / "out", 0)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_journal_keeps_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half(tmp_path / "out", 2)

    def full(*_: object) -> None:
        raise atomic.NotCommitted("could not be written")

    with monkeypatch.context() as patched:
        patched.setattr(stage, "SECONDS_BETWEEN_JOURNALS", 1e9)
        patched.setattr(atomic, "write_file", full)
        half(tmp_path / "out", 4)
    assert make(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_disk_that_fills_up_at_the_end_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SECONDS_BETWEEN_JOURNALS", 1e9)
    with (
        disk_faults.fail_at(1, "fsync", errno.EDQUOT),
        pytest.raises(RunError, match="Free some space") as caught,
    ):
        make(tmp_path / "out")
    assert caught.value.where == str(tmp_path / "out")
    assert make(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


class Interrupting(Mapping[str, Any]):
    """Ctrl-C arrives while the state is copied: the bytes are written, the state is not."""

    def __getitem__(self, key: str) -> Any:
        raise KeyboardInterrupt

    def __iter__(self) -> Iterator[str]:
        raise KeyboardInterrupt

    def __len__(self) -> int:
        return 1


def test_ctrl_c_never_parts_the_bytes_from_their_state(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def interrupted() -> None:
        with Stage(out, KEY, START) as staged:
            staged.append(BATCHES[0], {"at": 1})
            staged.append(BATCHES[1], Interrupting())

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert make(out)
    assert out.read_bytes() == WHOLE


def test_a_file_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"""
import sys
from pathlib import Path
from offapi.files.staged import Stage
with Stage(Path({str(out)!r}), {{}}, {{}}) as staged:
    print("ready", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(RunError, match="another process is writing this file"):
            make(out)
        other.kill()
    make(out)
    assert out.read_bytes() == WHOLE


def test_a_file_just_finished_elsewhere_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process renames the file between our opening it and our lock."""
    out = tmp_path / "out"
    finished: list[Path] = []
    real = fcntl.flock

    def late(file: int, operation: int) -> None:
        if not finished:
            finished.append(out)
            os.write(file, b"theirs")
            out.with_name("out.part").rename(out)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Stage(out, KEY, START) as staged:
        assert out.read_bytes() == b"theirs"
        staged.discard()
    assert out.read_bytes() == b"theirs"


def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    half(tmp_path / "out")

    def discard() -> None:
        with Stage(tmp_path / "out", KEY, START) as staged:
            assert staged.resumed
            staged.append(BATCHES[3], {"at": 4})
            staged.discard()
            raise Stopped

    with pytest.raises(Stopped):
        discard()
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written") as error:
        make(tmp_path / "file" / "out")
    assert "file/out" in error.value.where


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_disk_that_cannot_sync_keeps_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out = tmp_path / "out"

    def refuse(file: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(RunError, match="cannot be written") as caught:
            make(out)
        assert "Free some space" not in caught.value.next_step
    assert out.with_name("out.part").read_bytes() == BATCHES[0]
    assert make(out)  # resumed
    assert out.read_bytes() == WHOLE


def test_a_file_that_cannot_be_renamed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == out:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(RunError, match="cross-device") as caught:
            make(out)
        assert "file system" in caught.value.next_step
        assert "Free some space" not in caught.value.next_step
    assert out.with_name("out.part").read_bytes() == WHOLE
    assert make(out)
    assert out.read_bytes() == WHOLE
