"""Distil a frontier model's recorded answers to real receipts; evaluate on people's answers.

DATA is a folder with train.jsonl (documents with "recorded_label"; their gold is removed before
anything reads them), val.jsonl (with "gold") and, for --more, unlabelled.jsonl.

    python scripts/bench/receipts.py DATA --backend torch --epochs 2
    python scripts/bench/receipts.py DATA --more 400 --epochs 2 --name more
    python scripts/bench/receipts.py DATA --graded --more 1006 --epochs 1 --cap 4 --name graded

With --graded the recipe is filtered_sft: besides the student, a control learns from as many random
answers. The gold of the training documents stays in the file, only for the report.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click

from offapi.data import documents

TASK = Path(__file__).with_name("receipts_task.py").absolute()
SETTINGS = {
    "lr": "5e-4",
    "batch_size": "4",
    "on_long": '"drop"',
    "max_tokens": "1536",
}


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--backend", default="torch", show_default=True, help="Backend to train with.")
@click.option("--epochs", default=2.0, show_default=True, help="Passes over the documents.")
@click.option("--more", default=0, help="Documents of unlabelled.jsonl to learn from as well.")
@click.option("--cap", default=8, show_default=True, help="Most documents of one vendor.")
@click.option("--graded", is_flag=True, help="Train with filtered_sft instead of distill.")
@click.option(
    "--out",
    "out_folder",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder of the runs.",
)
@click.option("--name", default="receipts", show_default=True, help="Name of the run.")
@click.option("--resume", is_flag=True, help="Resume the run from its last checkpoint.")
@click.option("--set", "overrides", multiple=True, help="Key of the recipe, as key=value.")
def main(
    data: Path,
    backend: str,
    epochs: float,
    more: int,
    cap: int,
    graded: bool,
    out_folder: Path,
    name: str,
    resume: bool,
    overrides: tuple[str, ...],
) -> None:
    """Write the recipe into OUT, and run `offapi train` on it."""
    out = out_folder.absolute()
    folder = out / f"{name}-inputs"
    folder.mkdir(parents=True, exist_ok=True)
    rows = documents.read(data / "train.jsonl")
    if more:
        rows += documents.read(data / "unlabelled.jsonl")[:more]
    documents.write(
        folder / "train.jsonl", rows if graded else [replace(row, gold=None) for row in rows]
    )
    documents.write(folder / "val.jsonl", documents.read(data / "val.jsonl"))
    kind = (
        {"recipe": '"filtered_sft"'} if graded else {"recipe": '"distill"', "teacher": '"recorded"'}
    )
    lines = {**SETTINGS, **kind, "name": f'"{name}"', "epochs": str(float(epochs))}
    lines["keep"] = f'{{ cap = {cap}, cap_by = "vendor" }}'
    paths = {
        "task": TASK,
        "traces" if graded else "data": folder / "train.jsonl",
        "val": folder / "val.jsonl",
        "out": out,
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    text += "".join(f'{key} = "{path}"\n' for key, path in paths.items())
    recipe_path = folder / "distill.toml"
    recipe_path.write_text(text)
    words = [
        str(Path(sys.executable).with_name("offapi")),
        "train",
        str(recipe_path),
        "--backend",
        backend,
    ]
    if resume:
        words.append("--resume")
    for override in overrides:
        words += ["--set", override]
    sys.exit(subprocess.run(words, check=False).returncode)


if __name__ == "__main__":
    main()
