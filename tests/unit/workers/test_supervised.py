"""One supervised process: real hangs, crashes and kills, their reports, and leftovers."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from offapi.errors import ConfigError
from offapi.workers import supervised
from offapi.workers.supervised import POLL, CallNote, Ended, NotedCall, Supervised

NAMES = {each.__name__: each for each in (itertools, os, signal, subprocess, time)}  # a job's


def answering(settings: Path, note: CallNote) -> Callable[[str], object]:
    """Answer a job by running the Python in it, noted as a call for row 7."""

    def answer(job: str) -> object:
        if job.startswith("refuse"):
            raise ConfigError(job)
        if job.startswith("unnoted "):
            return eval(job.removeprefix("unnoted "), NAMES)
        note.begin(7, "check 'first'")
        note.call(f"check {job[:300]!r}")
        return eval(job, NAMES)

    settings.write_text(settings.read_text() + "x" if settings.exists() else "x")
    return answer


def refusing(settings: None, note: CallNote) -> Callable[[str], object]:
    raise ConfigError("no such task")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Supervised[str, object]]:
    found = Supervised(answering, tmp_path / "prepared")
    yield found
    found.end()
    assert spawned() == []


def spawned() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())
    ]


def until_ended(process: Supervised[str, object], seconds: float) -> Ended:
    """Look at the process every POLL seconds until it is stuck."""
    for _ in range(200):
        assert not process.pipe.poll(POLL)
        if (ended := process.end_if_stuck(seconds)) is not None:
            return ended
    raise AssertionError("it was never found stuck")


def gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def programs(starter: int) -> list[int]:
    """Return the programs named `sleep` that helpers of a process have started."""
    found = []
    for child in psutil.Process(starter).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found += [child.pid] if child.name() == "sleep" else []
    return found


def until(done: Callable[[], bool], seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    return done()


def test_it_answers_in_order_and_is_prepared_once(
    process: Supervised[str, object], tmp_path: Path
) -> None:
    for job in ("1 + 1", "refuse this", "'é' * 3"):
        process.send(job)
    first, refused, last = (process.take() for _ in range(3))
    assert (first, last) == (2, "ééé")
    assert isinstance(refused, ConfigError)
    assert refused.what == "refuse this"
    assert (tmp_path / "prepared").read_text() == "x"


def test_an_error_of_preparing_is_the_answer() -> None:
    process: Supervised[str, object] = Supervised(refusing, None)
    process.send("1")
    answer = process.take()
    process.end()
    assert isinstance(answer, ConfigError)
    assert answer.what == "no such task"


@pytest.mark.parametrize(
    "job", ["exec('while True: pass')", "time.sleep(60)", "sum(itertools.repeat(1))"]
)
def test_a_call_that_hangs_is_named_and_ended(process: Supervised[str, object], job: str) -> None:
    process.send(job)
    ended = until_ended(process, 0.3)
    assert ended == Ended(NotedCall(1, 7, f"check {job!r}"), "")
    assert spawned() == []


@pytest.mark.parametrize(
    ("job", "how"),
    [
        ("os._exit(5)", "exit code 5"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
    ],
)
def test_a_call_that_ends_the_process_is_named(
    process: Supervised[str, object], job: str, how: str
) -> None:
    process.send("1")
    process.send(job)
    assert process.take() == 1
    assert process.take() == Ended(NotedCall(2, 7, f"check {job!r}"), how)
    process.send("1")
    assert isinstance(process.take(), Ended)
    process.restart()
    process.send("2")
    assert process.take() == 2


def test_no_call_is_blamed_if_none_is_running(process: Supervised[str, object]) -> None:
    process.send("unnoted os._exit(3)")
    assert process.take() == Ended(None, "exit code 3")
    process.restart()
    process.send("unnoted time.sleep(0.8)")
    while not process.pipe.poll(POLL):
        assert process.end_if_stuck(0.1) is None


def test_the_limit_applies_to_each_turn(
    process: Supervised[str, object],
) -> None:
    process.send("1")
    process.take()
    for _ in range(3):
        process.send("time.sleep(0.4)")
        while not process.pipe.poll(POLL):
            assert process.end_if_stuck(1.0) is None
        assert process.take() is None


def test_a_call_that_takes_the_machines_memory_is_named_and_ended(
    process: Supervised[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 < supervised.most_memory() <= psutil.virtual_memory().total / 2
    monkeypatch.setattr(supervised, "most_memory", lambda: 0.3e9)
    process.send("len(b'x' * 10**6)")
    assert process.take() == 10**6
    job = "time.sleep(60 * len([b'x' * 4 * 10**8]))"
    process.send(job)
    ended = until_ended(process, 60.0)
    assert ended.call == NotedCall(2, 7, f"check {job!r}")
    assert re.fullmatch(r"it used 0\.\d GB of memory, 0\.3 are allowed", ended.how)
    assert spawned() == []


def test_suspended_time_does_not_count(process: Supervised[str, object]) -> None:
    process.send("1")
    process.take()
    process.send("time.sleep(1.6)")
    for _ in range(2):
        time.sleep(0.7)
        assert process.end_if_stuck(0.5) is None
    assert process.take() is None


def test_processes_of_a_call_end_with_it(process: Supervised[str, object]) -> None:
    process.send("subprocess.Popen(['sleep', '60']).pid")
    pid = process.take()
    assert isinstance(pid, int)
    assert not gone(pid)
    process.end()
    process.end()
    assert until(lambda: gone(pid))


def test_ctrl_c_and_a_scheduler_do_not_reach_it(process: Supervised[str, object]) -> None:
    process.send("time.sleep(0.3)")
    for number in (signal.SIGINT, signal.SIGTERM) * 3:
        for child in spawned():
            child.send_signal(number)
        time.sleep(0.15)
    assert process.take() is None
    process.send("signal.pthread_sigmask(signal.SIG_BLOCK, [])")
    assert process.take() == set()


def test_prints_go_to_stderr(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_supervised import Supervised, answering
if __name__ == "__main__":
    process = Supervised(answering, Path({str(tmp_path / "prepared")!r}))
    process.send("print('said', flush=True) or os.write(1, b'in C')")
    print(process.take())
    process.end()
"""
    (tmp_path / "main.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True)
    assert done.stdout == "4\n", done.stderr
    assert done.stderr == "said\nin C"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize(
    "job",
    [
        "exec('while True: pass')",
        "sum(itertools.repeat(1))",
        "1",
        "subprocess.Popen(['sleep', '60'])",
        "subprocess.run(['sleep', '60'])",
        "os.system('sleep 60; sleep 60')",
    ],
)
def test_a_killed_starter_leaves_no_process(tmp_path: Path, job: str, how: signal.Signals) -> None:
    program = f"""
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup inherit that it is ignored
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_supervised import Supervised, answering
if __name__ == "__main__":
    process = Supervised(answering, Path({str(tmp_path / "prepared")!r}))
    process.send({job!r})
    time.sleep(60)
"""
    (tmp_path / "main.py").write_text(program)
    starter = subprocess.Popen([sys.executable, tmp_path / "main.py"])
    try:
        sleeps = "sleep" in job
        started = (tmp_path / "prepared").exists
        assert until(lambda: len(programs(starter.pid)) == 1 if sleeps else started(), 20.0)
        children = psutil.Process(starter.pid).children()
        pids = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
        assert len(pids) == 1
        pids += programs(starter.pid)
        assert len(pids) == 1 + sleeps
    finally:
        starter.send_signal(how)
        starter.wait()
    assert until(lambda: all(map(gone, pids)), 3.0)


def test_long_and_odd_names_are_cut_to_fit() -> None:
    note = CallNote()
    assert note.read() is None
    note.begin(-1, "é" * 200)
    assert note.read() == NotedCall(1, -1, "é" * 120)
    note.call("\udcff short")
    assert note.read() == NotedCall(1, -1, "? short")
    note.clear()
    assert note.read() is None
    note.begin(2**40, "next")
    assert note.read() == NotedCall(2, 2**40, "next")
