"""A job's command as a process group that a successor of its server can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from offapi.errors import RunError
from offapi.files.lock import open_locked
from offapi.serve.fine_tuning import job_process
from offapi.serve.fine_tuning.job_process import LOCK, JobProcess, end_leftover

# As a training does: SIGTERM ends it, after it has told that it began.
SLEEPER = "import pathlib, time; pathlib.Path('began').touch(); time.sleep(60)"
# A server that starts one and is killed at once.
SERVER = f"""
import os, pathlib, signal, sys, time
from offapi.serve.fine_tuning import job_process
job_process.OFFAPI = ("-c", {SLEEPER!r})
job_process.JobProcess(pathlib.Path(sys.argv[1]), ())
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_server_left_running_is_ended(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SERVER, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    group = int((tmp_path / LOCK).read_text())
    os.killpg(group, 0)
    with pytest.raises(RunError):
        JobProcess(tmp_path, ())
    end_leftover(tmp_path)
    os.close(open_locked(tmp_path / LOCK))  # nothing of it holds the lock any more


def test_a_number_without_its_lock_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=tmp_path) as stranger:
        (tmp_path / LOCK).write_text(str(stranger.pid))
        end_leftover(tmp_path)
        assert stranger.poll() is None
        stranger.kill()


def test_a_failed_command_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = JobProcess(tmp_path, ("train", "nothing.toml", "--json"))
    assert process.ended(60)
    assert not process.succeeded
    error = process.error()
    assert error["code"] == "config"
    assert error["next"]
    monkeypatch.setattr(job_process, "OFFAPI", ("-c", "import os; os.kill(os.getpid(), 9)"))
    killed = JobProcess(tmp_path, ())
    assert killed.ended(60)
    assert killed.error()["message"] == "The command was ended by signal 9."


def test_a_running_command_is_nice_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_process, "OFFAPI", ("-c", SLEEPER))
    process = JobProcess(tmp_path, ())
    pid = int((tmp_path / LOCK).read_text())
    assert os.getpriority(os.PRIO_PROCESS, pid) >= job_process.NICE
    assert not process.ended(0.01)
    process.stop()
    assert process.ended(0.0)
