"""Cost inputs from a run folder: tokens of its answers, seconds per document, training hours.

Nothing is guessed: what the folder does not hold stays unknown. Left out: asking the model
again (`measure`).
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
from offapi.text.display import plural
from offapi.training.prompt_settings import options_of
from offapi.training.run import Run


def read(run: Run) -> Layer:
    """Return every input that the run holds. Raise RunError or DataError for damaged files."""
    figures = {
        **training_hours(run),
        **heldout_seconds(run),
        **answer_tokens(run),
        **scored_answers(run),
        **teacher_tokens(run),
    }
    known = {
        key: Quantity(Range(x, x, x), f"{run.path.name}: {where}")
        for key, (x, where) in figures.items()
    }
    return Layer(known, {})


Figures = dict[str, tuple[float, str]]  # by input: the figure, and where in the run it is from


def training_hours(run: Run) -> Figures:
    """Return the hours of all attempts that ended."""
    spans = [
        datetime.fromisoformat(attempt["ended"]) - datetime.fromisoformat(attempt["started"])
        for attempt in run.manifest.get("attempts", [])
        if "ended" in attempt
    ]
    if not spans:
        return {}
    hours = sum(span.total_seconds() for span in spans) / 3600
    return {"training_hours": (round(hours, 4), "attempts in manifest.json")}


def heldout_seconds(run: Run) -> Figures:
    """Return the seconds per held-out document of a GRPO run's evaluations, grading included.

    The documents were answered in batches.
    """
    files = sorted(run.path.glob("heldout-*.jsonl"))
    if not files or not (run.path / TIMINGS).is_file():
        return {}
    timed = [
        row.value["seconds/heldout"]
        for row in jsonl.read(run.path / TIMINGS)
        if "seconds/heldout" in row.value
    ]
    count = len(jsonl.read(files[-1]))
    if not timed:
        return {}
    where = f"{plural(len(timed), 'evaluation')} of {plural(count, 'document')} in {TIMINGS}"
    return {"seconds": (median(timed) / count, where)}


def answer_tokens(run: Run) -> Figures:
    """Return the tokens per scored answer, end of turn included, by the model's own tokenizer."""
    path, config = run.path / "predictions.jsonl", run.manifest.get("config", {})
    if not path.is_file() or "model" not in config:
        return {}
    try:
        chat = Chat.load(store.get(config["model"]).path, recorded=options_of(run))
    except ModelError:
        return {}
    lengths = [1 + len(chat.encode(row.output)) for row in accuracy.read_predictions(path)]
    return {
        "own_tokens": (
            round(fmean(lengths), 1),
            (f"{plural(len(lengths), 'answer')} in predictions.jsonl"),
        )
    }


def scored_answers(run: Run) -> Figures:
    """Return seconds and tokens per document, if `offapi compare` or `curve` scored the run."""
    for path in sorted(run.path.glob("test-*.json")):
        cost = orjson.loads(path.read_bytes())
        figures = {"seconds": cost["seconds"], "own_tokens": cost["completion_tokens"]}
        return {key: (figure, path.name) for key, figure in figures.items() if figure > 0}
    return {}


def teacher_tokens(run: Run) -> Figures:
    """Return the tokens per request as an endpoint counted them, if one labelled for this run."""
    path = _labels(run)
    if path is None:
        return {}
    labels = labels_file.settle_labels(labels_file.read_labels(path).labels)
    counted = [label.usage for label in labels.values() if _by_endpoint(label)]
    if not counted:
        return {}
    whole, n = sum(counted, Usage()), len(counted)
    where = f"{plural(n, 'teacher answer')} in {path.name}"
    return {
        "input_tokens": (whole.prompt_tokens / n, where),
        "output_tokens": (whole.completion_tokens / n, where),
    }


def _labels(run: Run) -> Path | None:
    config: Mapping[str, Any] = run.manifest.get("config", {})
    named = [Path(config["labels"])] if config.get("labels") else []
    return next((path for path in (run.path / "labels.jsonl", *named) if path.is_file()), None)


def _by_endpoint(label: labels_file.Label) -> bool:
    return (
        label.status == "ok"
        and label.usage.completion_tokens > 0
        and label.teacher.startswith(("http://", "https://"))
    )
