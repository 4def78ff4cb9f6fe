"""Measure `offapi traces` on many rows: rows per second, and peak memory with its processes.

The rows have the shape of OpenAI's fine-tuning files, about 1 KB each: invoices of the demo's
generator with a reference number of their own, one in a hundred a copy of another, one in a
thousand not JSON. scripts/bench/grading.py measures grading.

    \b
    python scripts/bench/traces.py import --rows 100000
    python scripts/bench/traces.py import --rows 1000000 --json
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import orjson
from weighed import measured, show

from offapi.demo import generate
from offapi.demo import task as demo

BASE = 2000  # different invoices
LENGTH = 1000  # bytes of a row


@click.group(help=__doc__, context_settings={"max_content_width": 120})
def main() -> None:
    """Measure `offapi traces`."""


@main.command("import")
@click.option("--rows", default=100_000, show_default=True, help="Number of rows.")
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
def import_(rows: int, as_json: bool) -> None:
    """Generate the file, import it, and print time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        source, out_path = Path(folder, "train.jsonl"), Path(folder, "traces.jsonl")
        write(source, rows)
        command = [
            str(Path(sys.executable).with_name("offapi")),
            "traces",
            "import",
            "openai-ft",
            source,
            "--out",
            out_path,
        ]
        report = {"rows": rows, "bytes": source.stat().st_size, **measured(command)}
    report["rows_per_second"] = rows / report["seconds"]
    report["rows_per_cpu_second"] = rows / report["cpu_seconds"]
    show(report, as_json)


def write(path: Path, rows: int) -> None:
    """Write the fine-tuning file."""
    draw = np.random.default_rng(0)
    base = list(generate.generate("train", min(BASE, rows)))
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


if __name__ == "__main__":
    main()
