"""GRPO on real receipts: the hand-labelled student continues on documents alone; gold is the audit.

DATA is a folder as `receipts_compare.py` reads it, OUT the folder that it wrote: the student of the
hand labels and the documents, without their answers, come from there. The held-out documents are
val.jsonl. No step is chosen by them: the first and the last evaluation are compared.

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
@click.argument("out_folder", metavar="OUT", type=click.Path(path_type=Path, exists=True))
@click.option("--backend", default="torch", show_default=True, help="Backend to train with.")
@click.option("--passes", default=0.33, show_default=True, help="Passes over the documents.")
@click.option("--lr", default=4e-4, show_default=True, help="Learning rate.")
@click.option("--name", default="grpo-receipts", show_default=True, help="Name of the run.")
def main(data: Path, out_folder: Path, backend: str, passes: float, lr: float, name: str) -> None:
    """Train, and compare the last evaluation with the first."""
    out = out_folder.absolute()
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
    evaluations = sorted((out / name).glob("heldout-*.jsonl"))
    first = report(data / "val.jsonl", evaluations[0])
    last = report(data / "val.jsonl", evaluations[-1])
    comparison = compare_answers(last.predictions, first.predictions, names=("after", "before"))
    for line in comparison.lines():
        click.echo(line)


def report(val_path: Path, evaluation_path: Path) -> Report:
    """Score an evaluation's answers with gold."""
    lines = evaluation_path.read_bytes().splitlines()
    outputs = {row["id"]: row["output"] for row in map(orjson.loads, lines)}
    rows = [row for row in documents.read(val_path) if row.id in outputs]
    return score_predictions(load_task(TASK), rows, [outputs[row.id] for row in rows])


if __name__ == "__main__":
    main()
