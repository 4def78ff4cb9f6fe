"""What a job asks `offapi` to do: the files of its folder, and the commands over them.

    DIR/jobs/ID/training.jsonl  validation.jsonl   what was uploaded
                train.jsonl  val.jsonl  task.py  recipe.toml   what the commands read
                task/   run/                       what they write

Left out: running them (`offapi.serve.fine_tuning.job_runner`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from offapi.checks.answer_reading import read_trace
from offapi.data import traces
from offapi.data.traces import Trace
from offapi.init.recipe_files import packaged, with_keys
from offapi.serve.fine_tuning.job_store import FineTuningJob
from offapi.serve.fine_tuning.training_file import read_examples
from offapi.task import load_task
from offapi.training.run import MANIFEST

TRAINING, VALIDATION, RUN = "training.jsonl", "validation.jsonl", "run"
TRAIN, VAL, RECIPE, TASK = "train.jsonl", "val.jsonl", "recipe.toml", "task.py"
MADE = (TRAIN, VAL, RECIPE, TASK, "task", RUN, TRAINING, VALIDATION)
# Chats of any kind have no task of their own: it scores the validation file, nothing else.
CHATS = '''"""Chats, learned whole: an answer is scored by its likeness to the recorded one."""

import offapi
from offapi.checks import similar_to_gold

task = offapi.Task(
    name="chats",
    instructions="Answer as in the chats.",
    schema=None,
    checks={"like the recorded answer": (similar_to_gold(), 1.0)},
    max_answer_tokens=512,
)
'''
WARMUP = 10  # at most this many steps, and a tenth of all


def infer_task(job: FineTuningJob, folder: Path) -> list[str] | None:
    """Return the command that makes a task of the job's chats; None where none is to be made."""
    if job.recipe == "sft" or job.task_file or (folder / "task").exists():
        return None
    _write_rows(folder / TRAIN, folder / TRAINING)
    return ["init", "task", "--from", TRAIN, "--json"]


def prepare_training(
    job: FineTuningJob, folder: Path, backend: str, context: int | None
) -> list[str]:
    """Write what the training reads, and return its command: the same again to resume."""
    words = ["train", RECIPE, "--backend", backend, "--json"]
    if (folder / RUN / MANIFEST).exists():
        return [*words, "--resume"]
    rows = _write_rows(folder / TRAIN, folder / TRAINING)
    task_file = task_of(job, folder)
    if task_file is None:
        task_file = folder / TASK
        task_file.write_text(CHATS, encoding="utf-8")
    keys: dict[str, Any] = {"task": str(task_file), "model": job.base, "val": None}
    if (folder / VALIDATION).exists():
        _write_gold(folder / VAL, folder / VALIDATION, free_text=load_task(task_file).free_text)
        keys["val"] = VAL
    steps = max(1, len(rows) // job.batch_size) * job.epochs
    keys |= {"out": ".", "name": RUN, "seed": job.seed, "max_tokens": context or 2048}
    keys |= {"epochs": float(job.epochs), "batch_size": job.batch_size}
    keys |= {"warmup_steps": max(1, min(WARMUP, steps // 10))}
    (folder / RECIPE).write_text(_recipe(job, keys, rows), encoding="utf-8")
    return words


def task_of(job: FineTuningJob, folder: Path) -> Path | None:
    """Return the task of the job's model; None for chats of any kind."""
    if job.task_file:
        return Path(job.task_file)
    inferred = folder / "task" / TASK
    return inferred if inferred.exists() else None


def recipe_values(recipe: str) -> Mapping[str, Any]:
    """Return the packaged keys of a recipe."""
    return tomllib.loads(packaged(recipe))


def _recipe(job: FineTuningJob, keys: dict[str, Any], rows: list[Trace]) -> str:
    text = packaged(job.recipe)
    keys["lr"] = recipe_values(job.recipe)["lr"] * job.lr_multiplier
    if job.recipe == "sft":
        return with_keys(text, {**keys, "data": TRAIN, "learn": "chats"})
    single = all(row.single_shot for row in rows)
    prompt = "task" if single else "trace"
    return with_keys(text, {**keys, "traces": TRAIN, "control": False, "prompt": prompt})


def _write_rows(path: Path, source: Path) -> list[Trace]:
    rows = list(read_examples(source))
    traces.write(path, rows)
    return rows


def _write_gold(path: Path, source: Path, *, free_text: bool) -> None:
    """Write chats whose last answer is also their gold, as the task reads one."""
    rows = read_examples(source)
    traces.write(path, (replace(row, gold=_gold(row, free_text)) for row in rows))


def _gold(row: Trace, free_text: bool) -> Any:
    return row.answer if free_text else read_trace(row).value
