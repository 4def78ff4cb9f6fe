"""The proof that offapi stays offline: whole commands, traced in an empty network namespace.

A namespace fails connections; a library could swallow that. So system calls are traced as
well, where strace is there: not one may name an address outside this machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import model_files
import orjson
import pytest
import recipe_folder

LENGTH = """

def length(document, answer, context):
    return offapi.checks.Verdict(len(answer.text) % 5 / 4, "")


task = dataclasses.replace(task, checks={**task.checks, "length": (length, 1.0)})
"""
COMPARISON = """
recipe = "compare"
task = "task.py"
documents = "train.jsonl"
test = "val.jsonl"
model = "model"
out = "runs"
roads = ["sft", "distill", "filtered_sft", "grpo"]
teacher = "recorded"
lora = { rank = 4, alpha = 8.0 }
sft = { epochs = 1.0, batch_size = 4 }
distill = { epochs = 1.0, batch_size = 4, keep = { threshold = 0.5 } }
filtered_sft = { epochs = 1.0, batch_size = 4, keep = { threshold = 0.5 } }
grpo = { start = "sft", epochs = 0.5, batch_size = 4, num_generations = 4, workers = 2 }
"""
QUIET = {"guard": True, "refused": [], "opened": [], "started": []}
CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
OUTSIDE = re.compile(
    r'inet_(?:addr\(|pton\(AF_INET6, )"(?!127\.|::1")'
)  # as strace writes addresses


@pytest.fixture(scope="module", autouse=True)
def namespace() -> None:
    """Skip all of this if the system cannot make a private network."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode
    ):
        pytest.skip("unshare -rn is not installed or not permitted here: no proof on this system")


def alone(*command: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run `command` without a network; return it and its system calls to other machines."""
    strace, log = shutil.which("strace"), cwd / "trace.log"
    watch = [strace, "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", CALLS] if strace else []
    done = subprocess.run(
        ["unshare", "-rn", *watch, *command], capture_output=True, text=True, cwd=cwd, timeout=600
    )
    calls = log.read_text().splitlines() if log.exists() else []
    return done, [call for call in calls if OUTSIDE.search(call)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_control_an_attempt_is_seen_by_both(tmp_path: Path) -> None:
    """Without the guard an attempt reaches the system and is traced; with it, it does not."""
    attempt = (
        "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 5)\nexcept OSError as e:"
        " print(e)"
    )
    done, calls = alone(sys.executable, "-c", attempt, cwd=tmp_path)
    assert "unreachable" in done.stdout
    assert len(calls) == 1
    six = attempt.replace("192.0.2.1", "2001:db8::1")
    assert len(alone(sys.executable, "-c", six, cwd=tmp_path)[1]) == 1
    guarded, calls = alone(sys.executable, "-c", f"import offapi\n{attempt}", cwd=tmp_path)
    assert "the network guard refused 192.0.2.1:80" in guarded.stdout
    assert calls == []


def test_control_loopback_is_not_an_attempt(tmp_path: Path) -> None:
    local = (
        "import socket\ntry: socket.create_connection(('127.0.0.1', 9), 5)\nexcept OSError as e:"
        " print(e)"
    )
    done, calls = alone(sys.executable, "-c", local, cwd=tmp_path)
    assert done.stdout
    assert calls == []


def test_whole_recipes_make_no_attempt(
    tmp_path: Path, backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model is added, trained with two recipes and evaluated; no manifest has an attempt."""
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    model_files.folder(tmp_path / "tiny")
    short = [
        f"--set={change}"
        for change in ("model=tiny", "epochs=0.2", "max_tokens=1800", "on_long=drop")
    ]
    paths = ["--task=task/task.py", "--data=task/val.jsonl", "--adapter=runs/sft/adapter"]
    commands = [
        ["init", "task"],
        ["models", "add", "tiny"],
        ["doctor"],
        ["train", "task/sft.toml", f"--backend={backend_name}", *short],
        ["train", "task/filtered_sft.toml", f"--backend={backend_name}", *short],
        ["eval", *paths, "--model=tiny", "--limit=2", f"--backend={backend_name}"],
    ]
    together(commands, tmp_path)
    assert (tmp_path / "predictions.jsonl").exists(), "the last command ran"
    for run in ("sft", "filtered-sft", "filtered-sft/control"):
        assert network(tmp_path / "runs" / run) == QUIET


def test_grpo_and_the_comparing_commands(tmp_path: Path, backend_name: str) -> None:
    """Run GRPO with its reward processes, alone and compared, then all that reads the results."""
    grpo: dict[str, Any] = {
        "num_generations": 4,
        "batch_size": 4,
        "workers": 2,
        "eval_every": 2,
        "allow": ["cut", "learned"],
    }
    recipe_folder.lay_out(tmp_path, "grpo", count=12, epochs=1.0, **grpo)
    (tmp_path / "task.py").write_text(f"import dataclasses\n{recipe_folder.TASK}{LENGTH}")
    (tmp_path / "compare.toml").write_text(COMPARISON.replace('"model"', f'"{tmp_path / "model"}"'))
    for name, shops in (("reference", 40), ("fresh", 20)):
        recipe_folder.write_jsonl(
            tmp_path / f"{name}.jsonl", [served(name, row) for row in recipe_folder.rows(shops)]
        )
    backend = f"--backend={backend_name}"
    commands = [
        ["train", "grpo.toml", backend],
        ["compare", "compare.toml", backend],
        ["curve", "compare.toml", backend, "--sizes=4,8,12", "--draws=1"],
        ["cost", "--example=costs.toml"],
        ["cost", "--from=costs.toml", "--run=runs/grpo"],
        [
            "advise",
            "--labels=12",
            "--measured=runs/compare/compare.json",
            "--svg=advice.svg",
            "--no-input",
        ],
        ["report", "runs/compare"],
        ["report", "runs/grpo", "--md"],
        [
            "drift",
            "--task=task.py",
            "--reference=reference.jsonl",
            "--fresh=fresh.jsonl",
            "--state=drift.json",
        ],
    ]
    together(commands, tmp_path)
    assert (tmp_path / "drift.json").exists(), "the last command ran"
    arms = list((tmp_path / "runs/arms").glob("*-*"))
    assert {arm.name.rsplit("-", 1)[0] for arm in arms} == {
        "base",
        "sft",
        "distill",
        "filtered-sft",
        "grpo",
    }
    for run in (tmp_path / "runs/grpo", *(arm for arm in arms if not arm.name.startswith("base"))):
        assert network(run) == QUIET
    assert any(line.get("grad_norm") for line in recipe_folder.metrics(tmp_path / "runs/grpo")), (
        "there was a signal"
    )


def served(window: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a trace of a document and its gold, as it was served."""
    answer = orjson.dumps(row["gold"]).decode()
    turns = [{"role": "user", "content": row["document"]}, {"role": "assistant", "content": answer}]
    return {"id": f"{window}-{row['id']}", "messages": turns}


def together(commands: list[list[str]], folder: Path) -> None:
    """Run all of them in one process without a network: none fails, none reaches out."""
    one_process = (
        f"import sys\nfrom offapi import cli\nfor each in {commands!r}:\n    cli.run(each) and"
        " sys.exit(each[0])"
    )
    done, calls = alone(sys.executable, "-c", one_process, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert calls == []


def network(run: Path) -> dict[str, Any]:
    """Return what the run's manifest says about the network in its last attempt."""
    found: dict[str, Any] = orjson.loads((run / "manifest.json").read_bytes())["attempts"][-1][
        "network"
    ]
    return found
