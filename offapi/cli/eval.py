"""`offapi eval`: a model's answers against gold, each field with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from offapi.cli.output import Output, options

if TYPE_CHECKING:
    from offapi.backend import DType


@click.command(short_help="Score a model on labelled documents, each field with its interval.")
@click.option("--task", "task_file", type=click.Path(path_type=Path), required=True, help="The task file (Python).")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Documents with gold answers (JSONL).")
@click.option("--model", default="demo", show_default=True, help="A model in the store, or its folder.")
@click.option("--adapter", type=click.Path(path_type=Path), help="An adapter folder, such as runs/NAME/adapter.")
@click.option("--shots", type=click.IntRange(0), default=0, show_default=True, help="Worked examples in the prompt.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N documents.")
@click.option("--out", type=click.Path(path_type=Path), default="predictions.jsonl", show_default=True)
@click.option("--backend", help="torch or mlx.  [default: what suits this machine]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@options
def command(
    output: Output,
    *,
    task_file: Path,
    data: Path,
    model: str,
    adapter: Path | None,
    shots: int,
    limit: int | None,
    out: Path,
    backend: str | None,
    dtype: DType,
) -> None:
    """Score a model (and adapter) on documents with gold answers; predictions are written to --out.

    \b
    offapi eval --task task.py --data val.jsonl --model demo --adapter runs/distill/adapter
    """
    from offapi import atomic, models
    from offapi import task as tasks
    from offapi.backend import ModelSpec, default_backend, load
    from offapi.chat import Chat
    from offapi.data import documents
    from offapi.evaluate import score_predictions
    from offapi.predict import predict

    task, rows = tasks.load(task_file), documents.read(data)[:limit]
    for row in rows:
        task.check_gold(row.gold or {}, row=row.id)
    folder = models.get(model).path
    chat = Chat.load(folder)
    spec = ModelSpec(path=folder, adapter=adapter, dtype=dtype)
    loaded = load(backend or default_backend(), spec)
    found = predict(loaded, chat, task, rows, output, shots)
    loaded.close()
    report = score_predictions(task, rows, found.outputs)
    atomic.write_file(out, report.jsonl())
    output.table(("field", "right, with 95% interval"), report.table())
    cost = found.cost()
    output.say(f"{cost['prompt_tokens']:g} prompt tokens and {cost['seconds']:g} s a document.")
    output.say(f"Predictions: {out}")
    output.result(report.as_dict())
