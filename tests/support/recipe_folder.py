"""A tiny model, a task and documents on disk, and offapi run on them, in this process or another."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import orjson
import tiny_llama

from offapi import cli

TASK = """
import offapi
from offapi.checks import fits_schema, in_source, is_json

task = offapi.Task(
    name="letters",
    instructions="Name the shop.",
    schema={"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    checks={"json": (is_json, 1.0), "schema": (fits_schema, 1.0), "source": (in_source, 1.0)},
    match={"shop": "text"},
    max_answer_tokens=20,
)
"""
Done = subprocess.CompletedProcess[str]
SHOPS = ("Ash", "Birch", "Cedar", "Elm")


def rows(count: int, wrong: int = 0) -> list[dict[str, Any]]:
    """Return documents with gold.

    The first `wrong` recorded labels name a shop that is not in the text.
    """
    documents = []
    for i in range(count):
        shop = SHOPS[i % len(SHOPS)] + chr(ord("a") + i)
        label = {"shop": "Nowhere Inc" if i < wrong else shop}
        documents.append(
            {
                "id": f"d{i}",
                "document": f"from {shop}, no {i}",
                "gold": {"shop": shop},
                "recorded_label": label,
            }
        )
    return documents


def write_jsonl(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def lay_out(
    folder: Path, recipe: str = "sft", count: int = 10, wrong: int = 0, **keys: Any
) -> Path:
    """Write everything that a run needs into `folder`, and return the recipe file's path."""
    folder.mkdir(exist_ok=True)
    model = tiny_llama.write_chat(folder / "model")
    (folder / "task.py").write_text(TASK)
    write_jsonl(folder / "train.jsonl", rows(count, wrong))
    write_jsonl(folder / "val.jsonl", rows(24)[20:])  # none of which are learned
    settings = {
        "recipe": recipe,
        "task": "task.py",
        "data": "train.jsonl",
        "val": "val.jsonl",
        "out": "runs",
        "model": str(model),
        "lr": 1e-2,
        "epochs": 2.0,
        "batch_size": 2,
        "warmup_steps": 1,
        "checkpoint_every": 2,
        **keys,
    }
    text = "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in settings.items())
    path = folder / f"{recipe}.toml"
    path.write_text(text + "\n[lora]\nrank = 4\nalpha = 8.0\n")
    return path


TIMEOUT = 300  # seconds


def offapi(*words: str, cwd: Path | None = None) -> Done:
    """Run `offapi WORDS` in this process: torch is loaded once, not once per command."""
    stdout, stderr = io.BytesIO(), io.BytesIO()
    out, err = (
        io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in (stdout, stderr)
    )
    with chdir(cwd or Path.cwd()), redirect_stdout(out), redirect_stderr(err):
        code = cli.run(words)
    return Done(start(*words), code, stdout.getvalue().decode(), stderr.getvalue().decode())


def apart(*words: object, **options: Any) -> Done:
    """Run `offapi WORDS`, the installed command, in a process of its own."""
    settings = {"env": environment(), "timeout": TIMEOUT, **options}
    return subprocess.run(start(*words), capture_output=True, text=True, check=False, **settings)


def environment(**more: str) -> dict[str, str]:
    """Return an environment for sharing the machine: one thread, and none that spins."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **more}


def start(*words: object) -> list[str]:
    """Return the command line of the installed offapi."""
    return [str(Path(sys.executable).with_name("offapi")), *map(str, words)]


def told(done: Done) -> dict[str, Any]:
    """Return what a successful command wrote to stdout with --json."""
    assert done.returncode == 0, done.stderr
    output: dict[str, Any] = orjson.loads(done.stdout)
    return output


def until(
    done: Callable[[], object],
    why: Callable[[], str] = lambda: "timed out",
    seconds: float = 120.0,
) -> None:
    """Wait for `done`, and fail with `why` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, why()
        time.sleep(0.005)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
