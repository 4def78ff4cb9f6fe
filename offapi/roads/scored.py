"""A row of the comparison scored on the test set: its predictions and what an answer costs, kept beside the arm.

Left out: the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi import __version__, atomic, evaluate, testset
from offapi.backend import DType
from offapi.evaluate import Report
from offapi.progress import Progress
from offapi.roads import arm as arms
from offapi.roads.arm import ARMS, DIGITS
from offapi.roads.keys import Keys
from offapi.runs import Run
from offapi.scoring import Asked, Questions
from offapi.scoring import score as ask


@dataclass(frozen=True)
class Scored:
    """Accuracy on the test set. `cost` of a document: prompt tokens, completion tokens and seconds."""

    report: Report
    cost: dict[str, float]
    path: Path


def student(folder: Path, adapter: str, keys: Keys, questions: Questions, backend: str, out: Progress) -> Scored:
    """The student in the run `folder`, asked as it was trained, without worked examples."""
    return _scored(folder, keys.model, folder / adapter, 0, keys.dtype, questions, backend, out)


def model(kind: str, name: str, shots: int, keys: Keys, questions: Questions, backend: str, out: Progress) -> Scored:
    """A model as it is, base or teacher; kept in a folder of its own among the arms."""
    manifest: dict[str, Any] = {
        "backend": backend,
        "offapi": __version__,
        "shots": shots,
        "dtype": keys.dtype,
        "sha256": {"task": testset.digest(keys.task), "model": arms.model_hash(name)},
    }
    path = (keys.out / ARMS / arms.named(kind, manifest)).absolute()
    if not path.exists():
        Run.create(path.parent, path.name, manifest)
    return _scored(path, name, None, shots, keys.dtype, questions, backend, out)


def done(folder: Path, questions: Questions) -> Scored | None:
    """What was found before; None where this test set was not scored."""
    answers, cost = _paths(folder, questions)
    if not (answers.is_file() and cost.is_file()):
        return None
    return Scored(Report.of(evaluate.read(answers)), orjson.loads(cost.read_bytes()), answers)


def _scored(
    folder: Path,
    name: str,
    adapter: Path | None,
    shots: int,
    dtype: DType,
    questions: Questions,
    backend: str,
    out: Progress,
) -> Scored:
    found = done(folder, questions)
    if found is not None:
        return found
    answers, cost = _paths(folder, questions)
    told = ask(Asked(name, adapter, shots, 1, 0.0, answers, backend, dtype), questions, out)
    atomic.write_file(cost, orjson.dumps(told.cost.cost()))  # last: with it the scoring is whole
    found = done(folder, questions)
    assert found is not None
    return found


def _paths(folder: Path, questions: Questions) -> tuple[Path, Path]:
    digest = testset.digest(questions.data)[:DIGITS]
    return folder / f"test-{digest}.jsonl", folder / f"test-{digest}.json"
