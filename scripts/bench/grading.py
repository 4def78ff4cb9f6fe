"""Measure `offapi grade` on many traces: rows per second, and peak memory with its processes.

The traces are invoices of the demo's generator, each with a reference number of its own, one in a
hundred a copy of another. The checks are the cheap ones: JSON, schema, characters, length.

    \b
    python scripts/bench/grading.py --rows 100000
    python scripts/bench/grading.py --rows 1000000 --check source --json
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import orjson
from weighed import measured, show

from offapi.data.documents import fields_of
from offapi.demo import generate
from offapi.demo import task as demo

BASE = 2000  # different invoices
TASK = """
import offapi
from offapi import checks
from offapi.demo import task as demo

task = offapi.Task(
    name="bench", instructions=demo.task.instructions, schema=demo.task.schema,
    match=demo.task.match,
    checks={"json": (checks.is_json, 1.0), "schema": (checks.fits_schema, 1.0),
            "characters": (checks.clean_characters, 1.0),
            "length": (checks.length(2, 500), 1.0)} | {MORE},
)
"""
MORE = {"none": "{}", "source": '{"source": (checks.in_source, 1.0)}'}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option("--rows", default=100_000, show_default=True, help="Number of traces.")
@click.option(
    "--check",
    type=click.Choice(list(MORE)),
    default="none",
    show_default=True,
    help="A check to add to the cheap ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one object on stdout.")
def main(rows: int, check: str, as_json: bool) -> None:
    """Generate the traces, grade them, and print time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        traces, task = Path(folder, "traces.jsonl"), Path(folder, "task.py")
        task.write_text(TASK.replace("{MORE}", MORE[check]))
        write(traces, rows)
        command = [
            str(Path(sys.executable).with_name("offapi")),
            "grade",
            "--task",
            task,
            "--traces",
            traces,
        ]
        command += [
            "--out",
            str(Path(folder, "graded.jsonl")),
            "--kept",
            str(Path(folder, "kept.jsonl")),
        ]
        report = {
            "rows": rows,
            "bytes": traces.stat().st_size,
            **measured(command, Path(folder, "graded.jsonl")),
        }
    report["rows_per_second"] = rows / report["grading_seconds"]
    report["rows_per_cpu_second"] = rows / report["cpu_seconds"]
    show(report, as_json)


def write(path: Path, rows: int) -> None:
    """Write the traces, a tenth of them with a wrong total."""
    draw = np.random.default_rng(0)
    base = list(generate.generate("train", min(BASE, rows)))
    with path.open("wb") as file:
        for i in range(rows):
            number = i if draw.random() > 0.01 or i == 0 else int(draw.integers(i))
            row = base[number % len(base)]
            answer = dict(fields_of(row.gold))
            if draw.random() < 0.1:
                answer["total"] = None
            question = demo.task.messages(f"{row.text}\nReference: {number * 7919 % 10**9:09d}")
            messages = [*question, {"role": "assistant", "content": orjson.dumps(answer).decode()}]
            value = {
                "id": f"trace-{i}",
                "messages": messages,
                "group": f"customer-{number % 50_000}",
            }
            file.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
