"""A tiny model, a task and documents on disk, and offapi run on them, here or in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import orjson
import tiny

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
SHOPS = ("Ash", "Birch", "Cedar", "Elm")


def rows(count: int, wrong: int = 0) -> list[dict[str, Any]]:
    """Documents with gold; the first `wrong` recorded labels name a shop that is not in the text."""
    made = []
    for i in range(count):
        shop = SHOPS[i % len(SHOPS)] + chr(ord("a") + i)
        label = {"shop": "Nowhere Inc" if i < wrong else shop}
        made.append(
            {"id": f"d{i}", "document": f"from {shop}, no {i}", "gold": {"shop": shop}, "recorded_label": label}
        )
    return made


def write_jsonl(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def lay_out(folder: Path, recipe: str = "sft", count: int = 10, wrong: int = 0, **keys: Any) -> Path:
    """Everything a run needs in `folder`; the recipe file's path."""
    folder.mkdir(exist_ok=True)
    model = tiny.write_chat(folder / "model")
    (folder / "task.py").write_text(TASK)
    write_jsonl(folder / "train.jsonl", rows(count, wrong))
    write_jsonl(folder / "val.jsonl", rows(24)[20:])  # none of them among those learned
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


ENVIRONMENT: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def offapi(*words: str) -> subprocess.CompletedProcess[str]:
    """`offapi WORDS` in this process: torch is loaded once, not once a command."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run(words)
    shown = (stream.buffer.getvalue().decode() for stream in (out, err) if isinstance(stream.buffer, io.BytesIO))
    return subprocess.CompletedProcess(words, code, *shown)


def apart(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`offapi WORDS`, the installed command, in a process of its own."""
    return subprocess.run(start(*words), capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}, **options)


def start(*words: str) -> list[str]:
    """The command line of the installed offapi."""
    return [str(Path(sys.executable).with_name("offapi")), *words]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
