"""The proof that offapi stays offline: whole commands in a network namespace that holds nothing, watched for attempts.

A namespace fails connections; a library could swallow that. So system calls are traced as
well, where strace is there: not one may name an address outside this machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import stored

CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
OUTSIDE = re.compile(r'inet_(?:addr\(|pton\(AF_INET6, )"(?!127\.|::1")')  # as strace writes addresses


@pytest.fixture(scope="module", autouse=True)
def namespace() -> None:
    """Skip everything here where this system makes no private network."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("unshare -rn is not installed or not permitted here: no proof on this system")


def alone(*command: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run `command` without any network; what it did, and its system calls towards other machines."""
    strace, log = shutil.which("strace"), cwd / "trace.log"
    watch = [strace, "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", CALLS] if strace else []
    done = subprocess.run(["unshare", "-rn", *watch, *command], capture_output=True, text=True, cwd=cwd, timeout=600)
    calls = log.read_text().splitlines() if log.exists() else []
    return done, [call for call in calls if OUTSIDE.search(call)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_control_an_attempt_is_seen_by_both(tmp_path: Path) -> None:
    """Without the guard an attempt reaches the system, fails there, and is traced; with it, it does not get so far."""
    attempt = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 5)\nexcept OSError as e: print(e)"
    done, calls = alone(sys.executable, "-c", attempt, cwd=tmp_path)
    assert "unreachable" in done.stdout
    assert len(calls) == 1
    six = attempt.replace("192.0.2.1", "2001:db8::1")
    assert len(alone(sys.executable, "-c", six, cwd=tmp_path)[1]) == 1
    guarded, calls = alone(sys.executable, "-c", f"import offapi\n{attempt}", cwd=tmp_path)
    assert "the network guard refused 192.0.2.1:80" in guarded.stdout
    assert calls == []


def test_control_loopback_is_not_an_attempt(tmp_path: Path) -> None:
    local = "import socket\ntry: socket.create_connection(('127.0.0.1', 9), 5)\nexcept OSError as e: print(e)"
    done, calls = alone(sys.executable, "-c", local, cwd=tmp_path)
    assert done.stdout
    assert calls == []


def test_whole_recipes(tmp_path: Path, backend_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is added, looked at, trained with two recipes and evaluated; no manifest saw an attempt either."""
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    stored.folder(tmp_path / "tiny")
    short = [f"--set={change}" for change in ("model=tiny", "epochs=0.2", "max_tokens=1800", "on_long=drop")]
    paths = ["--task=task/task.py", "--data=task/val.jsonl", "--adapter=runs/sft/adapter"]
    commands = [
        ["init", "task"],
        ["models", "add", "tiny"],
        ["doctor"],
        ["train", "task/sft.toml", f"--backend={backend_name}", *short],
        ["train", "task/filtered_sft.toml", f"--backend={backend_name}", *short],
        ["eval", *paths, "--model=tiny", "--limit=2", f"--backend={backend_name}"],
    ]
    one_process = (
        f"import sys\nfrom offapi import cli\nfor each in {commands!r}:\n    cli.run(each) and sys.exit(each[0])"
    )
    done, calls = alone(sys.executable, "-c", one_process, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert calls == []
    assert (tmp_path / "predictions.jsonl").exists(), "the last command ran"
    for run in ("sft", "filtered-sft", "filtered-sft/control"):
        manifest = orjson.loads((tmp_path / "runs" / run / "manifest.json").read_bytes())
        assert manifest["attempts"][-1]["network"] == {"guard": True, "refused": [], "opened": []}
