"""`offapi traces` on many rows: rows a second, and the most memory that the command and its processes hold.

The rows are of OpenAI's fine-tuning shape, about 1 KB each: invoices of the demo's generator with a
reference number of their own, one in a hundred a copy of another, one in a thousand not JSON. What
grading them takes, scripts/bench/grading.py measures.

    python scripts/bench/traces.py import --rows 100000
    python scripts/bench/traces.py import --rows 1000000 --json
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import orjson
import psutil
from grading import MIB, POLL, held, kin

from offapi.demo import documents
from offapi.demo import task as demo

BASE = 2000  # different invoices
LENGTH = 1000  # bytes of a row


@click.group(help=__doc__, context_settings={"max_content_width": 120})
def main() -> None:
    """One subcommand for each thing to be measured."""


@main.command("import")
@click.option("--rows", default=100_000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
def import_(rows: int, as_json: bool) -> None:
    """Make the file, import it, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "train.jsonl"), Path(folder, "traces.jsonl")
        write(source, rows)
        command = [str(Path(sys.executable).with_name("offapi")), "traces", "import", "openai-ft", source, "--out", out]
        found = {"rows": rows, "bytes": source.stat().st_size, **measured([str(word) for word in command])}
    found["rows_per_second"] = rows / found["seconds"]
    found["rows_per_cpu_second"] = rows / found["cpu_seconds"]
    if as_json:
        print(orjson.dumps(found).decode())
        return
    for name, value in found.items():
        print(f"{name:24} {value:,.1f}" if isinstance(value, float) else f"{name:24} {value:,}")


def write(path: Path, rows: int) -> None:
    """The fine-tuning file."""
    draw = np.random.default_rng(0)
    base = list(documents.generate("train", min(BASE, rows)))
    with path.open("wb") as file:
        for i in range(rows):
            number = i if draw.random() > 0.01 or i == 0 else int(draw.integers(i))
            row = base[number % len(base)]
            text = f"{row.text}\nReference: {number * 7919 % 10**9:09d}"
            messages = demo.task.messages(text)
            answer = {"role": "assistant", "content": orjson.dumps(row.gold).decode()}
            line = orjson.dumps({"messages": [*messages, answer]})
            short = LENGTH - len(line)
            if short > 0:
                messages[-1] = {**messages[-1], "content": text + "\n" + "." * short}
                line = orjson.dumps({"messages": [*messages, answer]})
            file.write(line[: -1 if draw.random() < 0.001 else None] + b"\n")


def measured(command: list[str]) -> dict[str, float]:
    """Seconds, those of all processors together, and the most memory held."""
    start, most, most_command = time.monotonic(), 0, 0
    before = os.times()
    process = psutil.Popen(command)
    while process.poll() is None:
        own, children = held(process), sum(map(held, kin(process)))
        most, most_command = max(most, own + children), max(most_command, own)
        time.sleep(POLL)
    if process.returncode:
        raise SystemExit(process.returncode)
    total, after = time.monotonic() - start, os.times()
    return {
        "cpu_seconds": sum(after[2:4]) - sum(before[2:4]),
        "seconds": total,
        "most_mib_command": most_command / MIB,
        "most_mib_all": most / MIB,
    }


if __name__ == "__main__":
    main()
