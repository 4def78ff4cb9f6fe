"""Many jobs for a few processes: their order, crashes and hangs, and leftover processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from offapi.errors import ConfigError, RunError
from offapi.workers import ordered_pool
from offapi.workers.ordered_pool import answer_in_order
from offapi.workers.supervised import CallNote, Ended

Job = tuple[int, str]


def answering(settings: int, note: CallNote) -> Callable[[Job], int]:
    """Answer with the square, after the mishap that the job names."""

    def answer(job: Job) -> int:
        number, evil = job
        note.begin(number, "squaring")
        match evil:
            case "die":
                os._exit(3)
            case "hang":
                time.sleep(60)
            case "slow":
                time.sleep(0.3)
            case "refuse":
                raise ConfigError(f"not {number}")
        return number**2 + settings

    return answer


def skipping(blamed: list[Ended]) -> Callable[[Job, Ended], Job]:
    def blame(job: Job, ended: Ended) -> Job:
        blamed.append(ended)
        return job[0], ""

    return blame


def answers(jobs: list[Job], blamed: list[Ended], ahead: int = 1) -> list[int]:
    found = answer_in_order(iter(jobs), answering, 0, skipping(blamed), seconds=0.5, ahead=ahead)
    return [answer for _, answer in found]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert spawned() == []


def spawned(pid: int | None = None) -> list[int]:
    return [
        child.pid
        for child in psutil.Process(pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


@pytest.mark.parametrize("ahead", [1, 2])
def test_answers_come_in_the_order_of_the_jobs(ahead: int) -> None:
    jobs = [(number, "slow" if number % 5 == 0 else "") for number in range(12)]
    blamed: list[Ended] = []
    assert answers(jobs, blamed, ahead) == [number**2 for number in range(12)]
    assert blamed == []
    assert answers([], blamed) == []


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_crash_or_hang_costs_no_other_job(ahead: int) -> None:
    evil = {2: "die", 3: "die", 6: "hang", 8: "die"}
    blamed: list[Ended] = []
    jobs = [(number, evil.get(number, "")) for number in range(10)]
    assert answers(jobs, blamed, ahead) == [number**2 for number in range(10)]
    found = sorted((ended.call.place, ended.call.name, ended.how) for ended in blamed if ended.call)
    assert found == [
        (2, "squaring", "exit code 3"),
        (3, "squaring", "exit code 3"),
        (6, "squaring", ""),
        (8, "squaring", "exit code 3"),
    ]


def test_an_error_is_raised_in_its_place() -> None:
    found = answer_in_order(iter([(1, "slow"), (2, "refuse"), (3, "")]), answering, 0, skipping([]))
    assert next(found) == ((1, "slow"), 1)
    with pytest.raises(ConfigError, match="not 2"):
        next(found)

    def stop(job: Job, ended: Ended) -> Job:
        raise RunError(f"job {job[0]} ended with {ended.how}")

    with pytest.raises(RunError, match="job 1 ended with exit code 3"):
        next(answer_in_order(iter([(1, "die")]), answering, 0, stop))


def test_no_more_jobs_are_taken_than_the_backlog_holds() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[Job]:
        for number in range(60):
            taken.append(number)
            yield number, "slow" if number == 0 else ""

    found = answer_in_order(jobs(), answering, 5, skipping([]))
    assert next(found) == ((0, "slow"), 5)
    assert len(taken) <= ordered_pool.BACKLOG + 1
    found.close()  # type: ignore[attr-defined]
    assert spawned() == []


def test_answers_beyond_a_pipes_buffer_do_not_block() -> None:
    def stop(job: bytes, ended: Ended) -> bytes:
        raise RunError(ended.how)

    found = answer_in_order(iter([b"x" * 2_000_000] * 8), echoing, None, stop)
    assert [len(answer) for _, answer in found] == [2_000_000] * 8


def echoing(settings: None, note: CallNote) -> Callable[[bytes], bytes]:
    return bytes


PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from test_ordered_pool import answer_in_order, answering, skipping
if __name__ == "__main__":
    for job, _ in answer_in_order(iter([(0, ""), (1, ""), (2, "hang"), (3, "hang")]),
                                  answering, 0, skipping([])):
        print(job[0], flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_leave_no_process(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "main.py").write_text(PROGRAM.format(here=str(Path(__file__).parent)))
    process = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
    pids = spawned(process.pid)
    assert len(pids) == 2
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=20)
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert errors.count("Traceback") == (number == signal.SIGINT)
    end = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
