"""What a run folder tells about costs: tokens of its
answers, seconds of a document, hours of training.

Nothing is guessed: what the folder does not hold stays unknown. Left out: asking the model
anew (`measure`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

import orjson

from offapi.chat.chat import Chat
from offapi.cost.inputs import Layer, Quantity, Range
from offapi.errors import ModelError
from offapi.evaluation import accuracy
from offapi.files import jsonl
from offapi.models import store
from offapi.rl.timings import TIMINGS
from offapi.teachers import labels_file
from offapi.teachers.teacher import Usage
from offapi.training.run import Run


def read(run: Run) -> Layer:
    """All that the run tells. RunError or DataError where its files are damaged."""
    found = {**training(run), **looks(run), **answers(run), **scored(run), **asked(run)}
    return Layer(
        {
            key: Quantity(Range(x, x, x), f"{run.path.name}: {where}")
            for key, (x, where) in found.items()
        },
        {},
    )


Told = dict[str, tuple[float, str]]  # by input: the figure, and where in the run it is from


def training(run: Run) -> Told:
    """Hours of all attempts that ended."""
    spans = [
        datetime.fromisoformat(attempt["ended"]) - datetime.fromisoformat(attempt["started"])
        for attempt in run.manifest.get("attempts", [])
        if "ended" in attempt
    ]
    if not spans:
        return {}
    hours = sum(span.total_seconds() for span in spans) / 3600
    return {"training_hours": (round(hours, 4), "attempts in manifest.json")}


def looks(run: Run) -> Told:
    """Seconds of a held-out document, many side by side,
    as the looks of a GRPO run were timed (with grading).
    """
    found = sorted(run.path.glob("heldout-*.jsonl"))
    if not found or not (run.path / TIMINGS).is_file():
        return {}
    timed = [
        row.value["seconds/heldout"]
        for row in jsonl.read(run.path / TIMINGS)
        if "seconds/heldout" in row.value
    ]
    count = len(jsonl.read(found[-1]))
    if not timed:
        return {}
    return {
        "seconds": (median(timed) / count, f"{len(timed)} looks at {count} documents in {TIMINGS}")
    }


def answers(run: Run) -> Told:
    """Tokens of the scored answers, with the end of the turn, by the model's own tokenizer."""
    path, config = run.path / "predictions.jsonl", run.manifest.get("config", {})
    if not path.is_file() or "model" not in config:
        return {}
    try:
        chat = Chat.load(store.get(config["model"]).path)
    except ModelError:
        return {}
    lengths = [1 + len(chat.encode(row.output)) for row in accuracy.read_predictions(path)]
    return {
        "own_tokens": (round(fmean(lengths), 1), f"{len(lengths)} answers in predictions.jsonl")
    }


def scored(run: Run) -> Told:
    """Seconds and tokens of a document where `offapi compare`
    or `curve` scored the run's student on a test set.
    """
    for path in sorted(run.path.glob("test-*.json")):
        cost = orjson.loads(path.read_bytes())
        figures = {"seconds": cost["seconds"], "own_tokens": cost["completion_tokens"]}
        return {key: (figure, path.name) for key, figure in figures.items() if figure > 0}
    return {}


def asked(run: Run) -> Told:
    """Tokens of a request as an endpoint counted them, where one labelled for this run."""
    path = _labels(run)
    if path is None:
        return {}
    counted = [
        one.usage
        for one in labels_file.settle_labels(labels_file.read_labels(path).labels).values()
        if _by_endpoint(one)
    ]
    if not counted:
        return {}
    whole, n = sum(counted, Usage()), len(counted)
    where = f"{n} answers of the teacher in {path.name}"
    return {
        "input_tokens": (whole.prompt_tokens / n, where),
        "output_tokens": (whole.completion_tokens / n, where),
    }


def _labels(run: Run) -> Path | None:
    config: Mapping[str, Any] = run.manifest.get("config", {})
    named = [Path(config["labels"])] if config.get("labels") else []
    return next((path for path in (run.path / "labels.jsonl", *named) if path.is_file()), None)


def _by_endpoint(one: labels_file.Label) -> bool:
    return (
        one.status == "ok"
        and one.usage.completion_tokens > 0
        and one.teacher.startswith(("http://", "https://"))
    )
