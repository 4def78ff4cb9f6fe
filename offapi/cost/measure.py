"""Measure seconds, tokens and, with a meter, watts of a run's model on its evaluation documents.

Nothing is scored, so this does not count as a scoring of the test set. Left out: a server's queue.
"""

from __future__ import annotations

from pathlib import Path

from offapi.backend import load
from offapi.chat.chat import Chat
from offapi.cost import watts
from offapi.cost.inputs import Layer, Quantity, Range
from offapi.errors import ConfigError
from offapi.evaluation import test_set
from offapi.evaluation.predict import predict
from offapi.model_spec import ModelSpec
from offapi.models import store
from offapi.progress import Progress
from offapi.task import load_task
from offapi.text.display import plural
from offapi.training.prompt_settings import options_of
from offapi.training.run import Run

KEYS = ("model", "task", "val")


def measure_run(run: Run, count: int, progress: Progress) -> Layer:
    """Return `seconds`, `own_tokens` and, with a meter, `watts` of `count` documents, in batches.

    Raise ConfigError if the run has no model, task, evaluation documents or adapter.
    """
    manifest = run.manifest
    config, adapter = manifest.get("config", {}), run.path / "adapter"
    missing = [key for key in KEYS if not config.get(key)]
    if not adapter.is_dir():
        missing.append("adapter")
    if missing:
        step = "Give --seconds, or name a finished run that had `val`."
        raise ConfigError(
            f"this run cannot be measured: it has no {missing[0]}.",
            where=str(run.path),
            next_step=step,
        )
    task = load_task(Path(config["task"]))
    rows, folder = test_set.read(Path(config["val"]), task, count), store.get(config["model"]).path
    chat = Chat.load(folder, recorded=options_of(run))
    spec = ModelSpec(
        path=folder,
        adapter=adapter,
        dtype=config.get("dtype", "float32"),
        quantize=config.get("quantize"),
    )
    backend = load(manifest["backend"], spec)
    try:
        # The first call pays for compiling and allocating.
        predict(backend, chat, task, rows[:1], progress)
        predicted, power = watts.measure_power(
            lambda: predict(backend, chat, task, rows, progress), watts.find_meter()
        )
    finally:
        backend.close()
    where = f"measured on {plural(len(rows), 'document')}, {backend.name}"
    known = {
        "seconds": predicted.seconds / len(rows),
        "own_tokens": predicted.completion_tokens / len(rows),
    }
    layer = {key: Quantity(Range(x, x, x), where) for key, x in known.items()}
    if power is not None:
        mean = power.watts
        layer["watts"] = Quantity(Range(mean, mean, mean), f"{where}: {power.of}")
    return Layer(layer, {})
