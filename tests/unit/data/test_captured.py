"""What a server keeps of its answers: what survives, what goes, and that no answer waits for it."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from kept_answers import answer, keep

from offapi.data import captured, traces
from offapi.data.captured import CaptureStore
from offapi.data.captured_answer import CapturedAnswer
from offapi.data.captured_purge import Purge, purge
from offapi.errors import ConfigError, DataError
from offapi.files.capture_file import NAME, CaptureFile

MIB = 1 << 20
WAIT = 10.0
Open = Callable[..., CaptureStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    stores = []

    def open_one(**settings: Any) -> CaptureStore:
        stores.append(CaptureStore(tmp_path / "kept", **settings))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def ids(folder: Path) -> list[str]:
    return [trace.id for trace in traces.read(folder)]


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def holds(folder: Path, text: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if text in path.read_bytes()]


def test_a_kept_answer_is_a_trace_with_what_gave_it(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "adapter": {"name": "runs/shops", "sha256": "a"},
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "params": {"temperature": 0.0, "max_tokens": 9},
        "fields": {"shop": {"value": "Ashu", "confidence": 0.97}},
        "escalated": {"to": "api.example.com", "model": "big", "failed": None},
    }
    folder = keep(tmp_path / "kept", answer(1, "from Ashu", '{"shop": "Ashu"}', **facts))
    (trace,) = traces.read(folder)
    assert (trace.document, trace.answer) == ("from Ashu", '{"shop": "Ashu"}')
    assert trace.source is not None
    assert facts.items() <= trace.source.items()
    assert trace.source["model"] == "shops"
    assert trace.escalated_to == "big"
    assert not trace.cut_off
    failed = {"to": "api.example.com", "model": None, "failed": "timed out"}
    own = traces.read(keep(tmp_path / "own", answer(1, escalated=failed)))[0]
    assert own.escalated_to == ""  # the student's own answer was sent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


WRITER = """
import sys
from pathlib import Path
from kept_answers import answer
from offapi.data.captured import CaptureStore
store = CaptureStore(Path(sys.argv[1]))
for number in range(10**9):
    assert store.keep(answer(number, said="x" * 500)).result()
    print(number, flush=True)
"""


def test_a_kill_loses_no_answer_that_was_sent(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    support = Path(__file__).parents[2] / "support"
    environment = {**os.environ, "PYTHONPATH": str(support)}
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 200:
                assert len(ids(folder)) > 200  # a reader neither waits nor disturbs
                process.send_signal(signal.SIGKILL)
                break
        sent = [200, *map(int, process.stdout)]
    assert {f"answer-{number}" for number in range(sent[-1] + 1)} <= set(ids(folder))
    keep(folder, answer(-1))  # the next server goes on with the file
    assert ids(folder)[-1] == "answer--1"


def test_the_files_never_take_more_than_is_allowed(opened: Open) -> None:
    store = opened(max_bytes=MIB)
    folder, most = store.path.parent, 0
    for start in range(0, 4000, 100):
        kept = [store.keep(answer(start + i, said="y" * 1000)) for i in range(100)]
        assert all(done.result(WAIT) for done in kept)
        most = max(most, bytes_of(folder))
    store.close()
    left = ids(folder)
    assert MIB // 2 < most <= MIB
    assert len(left) > 300
    assert left == [f"answer-{number}" for number in range(4000 - len(left), 4000)]
    assert store.removed == 4000 - len(left)
    assert not holds(folder, b'"answer-17"')


def test_rows_of_age_go(opened: Open, tmp_path: Path) -> None:
    now = time.time()
    keep(tmp_path / "kept", *(answer(i, time=now - i * captured.DAY) for i in (9, 5, 1)))
    store = opened(keep_days=6)
    assert store.keep(answer(0)).result(WAIT)
    store.close()
    assert ids(store.path.parent) == ["answer-5", "answer-1", "answer-0"]


def test_a_locked_file_delays_rows_and_not_the_answers(opened: Open) -> None:
    store = opened()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        kept = [store.keep(answer(i)) for i in range(5)]
        assert time.monotonic() - started < 1
        while not store.behind:
            assert time.monotonic() - started < WAIT
            time.sleep(0.01)
        other.execute("ROLLBACK")
    assert all(done.result(WAIT) for done in kept)
    assert not store.lost


def test_rows_that_wait_too_long_or_are_too_many_are_counted(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(captured, "SECONDS_CLOSING", 0.1)
    monkeypatch.setattr(captured, "WAITING_BYTES", 5000)
    store = opened(say=said.append)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        kept = [store.keep(answer(i, said="z" * 900)) for i in range(8)]
        store.close()
        assert not any(done.result(WAIT) for done in kept)
    assert store.lost == {captured.LOCKED: 8}
    assert len(said) == 1


def test_a_full_disk_is_said_once_and_keeping_goes_on(opened: Open) -> None:
    said: list[str] = []
    store = opened(say=said.append)
    assert store.keep(answer(0)).result(WAIT)
    with closing(sqlite3.connect(store.path)) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    connect = captured._connect

    def connect_full(path: Path, log_bytes: int) -> sqlite3.Connection:
        base = connect(path, log_bytes)
        base.execute(f"PRAGMA max_page_count = {pages}")
        return base

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "_connect", connect_full)
        store._inode = (0, 0)  # connect again
        lost = [store.keep(answer(i, said="w" * 5000)).result(WAIT) for i in range(1, 4)]
    store._inode = (0, 0)
    assert lost == [False] * 3
    assert store.lost == {captured.FULL: 3}
    assert len(said) == 1
    assert "It was sent all the same" in said[0]
    assert store.keep(answer(9)).result(WAIT)


def test_a_file_that_is_damaged_or_gone_breaks_no_answer(opened: Open) -> None:
    said: list[str] = []
    store = opened(say=said.append)
    assert store.keep(answer(0)).result(WAIT)
    store.path.unlink()
    assert not store.keep(answer(1)).result(WAIT)
    assert store.lost == {captured.UNWRITABLE: 1}
    store.path.write_bytes(b"x" * 5000)
    assert not store.keep(answer(2)).result(WAIT)
    assert len(said) == 1


def test_what_cannot_be_a_row_is_counted(opened: Open) -> None:
    store = opened(max_bytes=MIB)
    assert not store.keep(answer(0, said="x" * MIB)).result(WAIT)
    assert not store.keep(answer(1, said="\ud800")).result(WAIT)
    assert store.lost == {captured.LARGE: 1, captured.UNWRITABLE: 1}


def test_other_folders_and_files_are_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        CaptureStore(mine)
    assert stat.S_IMODE(mine.stat().st_mode) == 0o755
    other = tmp_path / "other"
    other.mkdir()
    with closing(sqlite3.connect(other / NAME)) as base:
        base.execute("CREATE TABLE t (x)")
    with pytest.raises(DataError, match="not a file of kept answers"):
        CaptureStore(other)
    with pytest.raises(DataError, match="it is an SQLite database"):
        traces.read(other / NAME)
    newer = keep(tmp_path / "newer", answer(0))
    with closing(sqlite3.connect(newer / NAME)) as base:
        base.execute("PRAGMA user_version = 2")
    for use in (CaptureStore, traces.read):
        with pytest.raises(DataError, match="have version 2, and this offapi reads version 1"):
            use(newer)
    damaged = keep(tmp_path / "damaged", *map(answer, range(50)))
    with (damaged / NAME).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 9000)
    with pytest.raises(DataError):
        CaptureStore(damaged)


@pytest.mark.parametrize("what", ["id", "before", "all"])
def test_no_byte_of_a_purged_answer_is_left(opened: Open, what: str) -> None:
    store, now = opened(), time.time()
    folder = store.path.parent
    secret, other = b"Zanzibar-7341", b"Kilimanjaro-22"
    rows: list[CapturedAnswer] = []
    for i in range(300):  # short and long rows, so that pages are shared and split
        text = f"{'-'.join(['word'] * (i % 90))} {other.decode()} {i}"
        rows.append(answer(i, text, time=now))
        if i % 3 == 0:
            text = f"{secret.decode()} {'x' * (i * 31 % 9000)} {secret.decode()}"
            more: dict[str, Any] = {"response": "asked", "time": now - 2 * captured.DAY}
            rows.append(answer(1000 + i, text, **more))
    assert all(done.result(WAIT) for done in map(store.keep, rows))
    assert holds(folder, secret)
    before = now - captured.DAY
    chosen = {"id": Purge(id="asked"), "before": Purge(before=before), "all": Purge()}[what]
    purged = purge(folder, chosen)
    assert (purged.removed, purged.left) == ((400, 0) if what == "all" else (100, 300))
    assert not holds(folder, secret)
    assert bool(holds(folder, other)) == (what != "all")
    assert store.keep(answer(5000)).result(WAIT)  # the server goes on
    assert ids(folder)[-1] == "answer-5000"


def test_only_kept_answers_are_purged(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("{}")
    with pytest.raises(DataError, match="no kept answers here"):
        purge(tmp_path, Purge())


def test_rows_up_to_a_number_stay_the_same_while_others_come(tmp_path: Path) -> None:
    folder = keep(tmp_path / "kept", answer(1), answer(2))
    now = Path(f"{folder}@2")
    found = CaptureFile.find(now)
    assert found is not None
    before = found.sha256()
    keep(folder, answer(3))
    assert ids(now) == ["answer-1", "answer-2"]
    assert (ids(folder), found.sha256()) == (["answer-1", "answer-2", "answer-3"], before)
    moved = folder.rename(tmp_path / "moved")
    assert ids(Path(f"{moved}@2")) == ["answer-1", "answer-2"]
    purge(moved, Purge(id="answer-3"))
    keep(moved, answer(4))
    last = CaptureFile.find(moved)
    assert last is not None
    assert last.last() == 4  # no number stands for two rows


def test_the_stream_of_rows_is_that_of_a_file(tmp_path: Path) -> None:
    folder = keep(tmp_path / "kept", *(answer(i, "é" * i * 999) for i in range(30)))
    found = CaptureFile.find(folder)
    assert found is not None
    lines = list(found.lines())
    assert found.stream().read() == b"".join(lines)
    assert [orjson.loads(line)["id"] for line in found.stream()] == ids(folder)
