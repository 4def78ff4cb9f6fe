"""A GRPO task on which the tiny random model has a signal, and runs of it with faults.

`Runner` is a process that has imported the backend and computed nothing. Each run, forked from it,
is a process of its own without seconds of start-up.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import disk_faults
import orjson
import recipe_folder

from offapi.rl.timings import TIMINGS

TASK = """
import offapi
from offapi.checks.verdict import Verdict

def share(letters):
    def check(document, answer, context):
        if document[-1] in "579":
            return Verdict(0.0, "teaches nothing: dynamic sampling replaces it")
        return Verdict(sum(c in letters for c in answer.text) / max(len(answer.text), 1), "")
    return check

task = offapi.Task(
    name="letters",
    instructions="Name the shop.",
    schema={"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    checks={"some": (share("abcdefghijklmnopqrstuvwxyz"), 1.0), "more": (share("".join(map(chr, range(128)))), 1.0)},
    audit=("more",),
    match={"shop": "text"},
    max_answer_tokens=12,
)
"""
GAMED = TASK.replace(
    'share("".join(map(chr, range(128))))', "share(chr(0xFFFD))"
)  # what is audited falls
KEYS = {
    "batch_size": 2,
    "num_generations": 4,
    "eval_every": 2,
    "workers": 1,
    "device": "cpu",
    "lr": 0.02,
}
NOT_COMPARED = ("manifest.json", ".lock", "console.log", TIMINGS)  # times, process ids, attempts


def lay_out(folder: Path, **keys: Any) -> Path:
    """Write a GRPO recipe and all it needs to `folder`; return the recipe's path."""
    settings = {
        "allow": ["cut", "learned"],
        "num_iterations": 2,
        "max_resamples": 1,
        "checkpoint_every": 2,
        **keys,
    }
    recipe = recipe_folder.lay_out(folder, "grpo", count=10, **{**KEYS, **settings})
    (folder / "task.py").write_text(TASK)
    for name in ("train", "val"):  # gold would audit what nothing here rewards
        rows = [orjson.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]
        recipe_folder.write_jsonl(
            folder / f"{name}.jsonl", [{k: row[k] for k in ("id", "document")} for row in rows]
        )
    return recipe


def contents(run: Path) -> dict[str, bytes]:
    """Return the files of a run folder that two equal runs have in common."""
    files = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in NOT_COMPARED}


@dataclass(frozen=True)
class Fault:
    """What happens to a run: SIGKILL after call `n` of `at`, or before a file operation in it.

    `operation` 1 is the first one. "full" is a disk that is full from the n-th write on. "clock" is
    a SIGKILL `seconds` after the start or, where n is 1, after the first step.
    """

    at: str = "none"
    n: int = 1
    operation: int = 0
    seconds: float = 0.0


class Runner:
    """Runs `offapi`, each time in a process forked from one that has imported `backend_name`."""

    def __init__(self, backend_name: str) -> None:
        script = (
            f"import sys; sys.path[:0] = {sys.path!r}; import grpo_signal;"
            f" grpo_signal.serve({backend_name!r})"
        )
        words = [sys.executable, "-c", script]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=recipe_folder.environment()
        )
        self.backend_name = backend_name
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"

    def train(
        self, recipe: Path, *words: str, fault: Fault | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `offapi train RECIPE WORDS` with `fault`."""
        assert self._process.stdin
        assert self._process.stdout
        arguments = ["train", str(recipe), "--backend", self.backend_name, *words]
        request = {"words": arguments, "fault": fault or Fault(), "folder": str(recipe.parent)}
        self._process.stdin.write(orjson.dumps(request) + b"\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(
            arguments, code, "", recipe.with_name("stderr").read_text()
        )

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def serve(backend_name: str) -> None:
    """Fork a run for each line of stdin, and answer with its exit code."""
    from offapi.backend import find

    find(backend_name)
    later = ["offapi.recipes.grpo", "transformers.models.llama.modeling_llama"]
    for name in [*later, "mlx_lm.models.llama"] if backend_name == "mlx" else later:
        import_module(name)  # once, not once a run
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        request = orjson.loads(line)
        fault, folder = Fault(**request["fault"]), Path(request["folder"])
        child = os.fork()
        if child == 0:
            _run(request["words"], fault, folder / "stderr")
        if fault.at == "clock":
            _kill_by_clock(child, fault, folder / "runs" / "grpo" / TIMINGS)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _run(words: list[str], fault: Fault, errors: Path) -> None:
    """The forked child: never returns."""
    from offapi import cli

    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        with ExitStack() as stack:
            if fault.at == "full":
                stack.enter_context(full_disk(fault.n))
            elif fault.at not in ("none", "clock"):
                _kill_in(fault)
            code = cli.run(words)
        sys.stderr.flush()
    finally:
        os._exit(code)


def _kill_by_clock(child: int, fault: Fault, timings: Path) -> None:
    """SIGKILL `child` at the fault's time, unless it ends before."""
    before = _size(timings)
    while fault.n and _size(timings) == before and not _ended(child):
        time.sleep(0.002)
    deadline = time.monotonic() + fault.seconds
    while time.monotonic() < deadline and not _ended(child):
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)


def _ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def full_disk(n: int) -> AbstractContextManager[None]:
    """Fill the disk at the n-th write to a regular file: writes and new folders fail from there."""
    left = n

    def tick(name: str, args: tuple[Any, ...], _: object) -> None:
        nonlocal left
        left -= name == "write" and stat.S_ISREG(os.fstat(args[0]).st_mode)
        if left <= 0 and name in ("write", "mkdir") and not (name == "write" and args[0] == 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return disk_faults.watching(tick)


def _owner(at: str) -> tuple[type, str]:
    from offapi.rl.rollouts import Sampler
    from offapi.rl.run_log import RunLog
    from offapi.training.run import Run

    kinds: dict[type, tuple[str, ...]] = {Sampler: ("groups",), RunLog: ("write_step",)}
    kinds[Run] = ("checkpoint", "write", "write_folder", "log")
    owners = {name: kind for kind, names in kinds.items() for name in names}
    if at in owners:
        return owners[at], at
    backend = next(kind for kind in _backends() if hasattr(kind, at))
    return backend, at


def _backends() -> list[type]:
    found = []
    for module, name in (("torch", "TorchBackend"), ("mlx", "MLXBackend")):
        loaded = sys.modules.get(f"offapi.backends.{module}_backend.backend")
        found += [getattr(loaded, name)] if loaded else []
    return found


def _kill_in(fault: Fault) -> None:
    """SIGKILL this process after the fault's call, or before a file operation in it."""
    owner, name = _owner(fault.at)
    real = getattr(owner, name)
    calls, left = 0, fault.operation

    def tick(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        with disk_faults.watching(tick) if calls == fault.n and fault.operation else nullcontext():
            returned = real(*args, **kwargs)
        if calls == fault.n and not fault.operation:
            os.kill(os.getpid(), signal.SIGKILL)
        return returned

    setattr(owner, name, called)
