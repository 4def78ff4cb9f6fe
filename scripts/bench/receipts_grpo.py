"""GRPO on real receipts: from the hand-labelled student
on, documents alone, rewarded by checks; gold is the audit.

DATA is a folder as `receipts_compare.py` reads it, OUT the folder that it wrote: its student of the
hand labels and its documents are taken from there, without their answers. The held-out documents
are val.jsonl; no step is chosen on them: the first and the last look are compared.

    python scripts/bench/receipts_compare.py DATA OUT
    python scripts/bench/receipts_grpo.py DATA OUT
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import orjson
from grpo_invoices import train

from offapi.data import documents
from offapi.evaluation.accuracy import Report, score_predictions
from offapi.evaluation.compare import compare_answers
from offapi.task import load_task

TASK = Path(__file__).with_name("receipts_task.py").absolute()


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path, exists=True))
@click.option("--backend", default="torch", show_default=True)
@click.option("--passes", default=0.33, show_default=True, help="Over the documents.")
@click.option("--lr", default=4e-4, show_default=True)
@click.option("--name", default="grpo-receipts", show_default=True)
def main(data: Path, out: Path, backend: str, passes: float, lr: float, name: str) -> None:
    """Train, and compare the last look with the first."""
    out = out.absolute()
    rows = documents.read(out / "documents.jsonl")
    documents.write(
        out / "silent.jsonl", [replace(row, gold=None, recorded_label=None) for row in rows]
    )
    student = next((out / "arms").glob("sft-*/adapter"))
    keys = {
        "recipe": "grpo",
        "name": name,
        "task": TASK,
        "data": out / "silent.jsonl",
        "val": out / "test.jsonl",
    }
    keys |= {
        "adapter": student,
        "out": out,
        "epochs": passes,
        "lr": lr,
        "warmup_steps": 4,
        "eval_every": 10,
    }
    train(out / f"{name}.toml", backend, {**keys, "on_long": "drop", "max_tokens": 1536})
    looks = sorted((out / name).glob("heldout-*.jsonl"))
    first, last = (report(data / "val.jsonl", look) for look in (looks[0], looks[-1]))
    for line in compare_answers(
        last.predictions, first.predictions, names=("after", "before")
    ).lines():
        click.echo(line)


def report(val: Path, look: Path) -> Report:
    """A look's answers, scored with gold."""
    said = {row["id"]: row["output"] for row in map(orjson.loads, look.read_bytes().splitlines())}
    rows = [row for row in documents.read(val) if row.id in said]
    return score_predictions(load_task(TASK), rows, [said[row.id] for row in rows])


if __name__ == "__main__":
    main()
