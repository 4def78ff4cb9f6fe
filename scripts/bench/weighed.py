"""Seconds, processor time and peak memory of a command with all its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
import psutil

POLL = 0.2  # seconds
MIB = 2**20


def measured(command: Sequence[object], until: Path | None = None) -> dict[str, float]:
    """Run a command; return its seconds, the CPU seconds of its processes, and peak memory in MiB.

    With `until`, also the seconds until that file exists.
    """
    start, most, most_command, seen = time.monotonic(), 0, 0, 0.0
    before = os.times()
    process = psutil.Popen([str(word) for word in command])
    while process.poll() is None:
        own, children = held(process), sum(map(held, kin(process)))
        most, most_command = max(most, own + children), max(most_command, own)
        if until is not None and not seen and until.exists():
            seen = time.monotonic() - start
        time.sleep(POLL)
    if process.returncode:
        raise SystemExit(process.returncode)
    total, after = time.monotonic() - start, os.times()
    return {
        "cpu_seconds": sum(after[2:4]) - sum(before[2:4]),
        "seconds": total,
        **({} if until is None else {"grading_seconds": seen}),
        "most_mib_command": most_command / MIB,
        "most_mib_all": most / MIB,
    }


def held(process: psutil.Process) -> int:
    """Return the bytes of memory that a process holds; 0 once it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def kin(process: psutil.Process) -> list[psutil.Process]:
    """Return the child processes of a process."""
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def show(report: Mapping[str, float], as_json: bool) -> None:
    """Print a report, for a program or a person."""
    if as_json:
        print(orjson.dumps(dict(report)).decode())
        return
    for name, value in report.items():
        print(f"{name:24} {value:,.1f}" if isinstance(value, float) else f"{name:24} {value:,}")
