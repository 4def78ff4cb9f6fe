"""Asks a run's model for some of its evaluation documents,
and measures seconds, tokens and, where told, watts.

Nothing is scored, so nothing is counted as a look at the test set. Left out: a server's queue.
"""

from __future__ import annotations

from pathlib import Path

from offapi.backend import ModelSpec, load
from offapi.chat.chat import Chat
from offapi.cost import watts
from offapi.cost.inputs import Layer, Quantity, Range
from offapi.errors import ConfigError
from offapi.evaluation import test_set
from offapi.evaluation.predict import predict
from offapi.models import store
from offapi.progress import Progress
from offapi.task import load_task
from offapi.training.run import Run

KEYS = ("model", "task", "val")


def measure_run(run: Run, count: int, out: Progress) -> Layer:
    """`seconds`, `own_tokens` and `watts` (where a meter
    is installed) of `count` documents, many side by side.

    ConfigError where the run names no model, task or evaluation documents, or has no adapter.
    """
    manifest = run.manifest
    config, adapter = manifest.get("config", {}), run.path / "adapter"
    missing = [key for key in KEYS if not config.get(key)] + (
        [] if adapter.is_dir() else ["adapter"]
    )
    if missing:
        step = "Give --seconds, or name the run of a recipe that ended and had `val`."
        raise ConfigError(
            f"this run cannot be measured, it has no {missing[0]}.",
            where=str(run.path),
            next_step=step,
        )
    task = load_task(Path(config["task"]))
    rows, folder = test_set.read(Path(config["val"]), task, count), store.get(config["model"]).path
    chat, spec = (
        Chat.load(folder),
        ModelSpec(path=folder, adapter=adapter, dtype=config.get("dtype", "float32")),
    )
    backend = load(manifest["backend"], spec)
    try:
        predict(
            backend, chat, task, rows[:1], out
        )  # the first call pays for compiling and allocating
        found, used = watts.measure_power(
            lambda: predict(backend, chat, task, rows, out), watts.find_meter()
        )
    finally:
        backend.close()
    where = f"measured on {len(rows)} documents, {backend.name}"
    known = {
        "seconds": found.seconds / len(rows),
        "own_tokens": found.completion_tokens / len(rows),
    }
    layer = {key: Quantity(Range(x, x, x), where) for key, x in known.items()}
    if used is not None:
        layer["watts"] = Quantity(Range(used.watts, used.watts, used.watts), f"{where}: {used.of}")
    return Layer(layer, {})
