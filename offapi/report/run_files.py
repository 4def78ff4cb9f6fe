"""Read a run's folder, without running anything and without taking its lock.

A run that is still training, or that failed, is read as far as it got. Left out: checkpoints and
adapters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from offapi.errors import DataError
from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import Prediction
from offapi.files import jsonl
from offapi.training.run import METRICS, Run

Object = Mapping[str, Any]
ANSWERS = "predictions"
ASIDE = ("control", "student", "teacher", "base")  # in the order they are shown


@dataclass(frozen=True)
class Answers:
    """A system's answers to documents with gold, by the name it is shown under."""

    name: str
    rows: tuple[Prediction, ...]
    cost: Object = field(default_factory=dict)  # per document, if it was kept with the answers

    @property
    def by_id(self) -> dict[str, Prediction]:
        """The answers by document; of several samples, the first."""
        first: dict[str, Prediction] = {}
        for row in self.rows:
            first.setdefault(row.id, row)
        return first

    @property
    def fields(self) -> list[str]:
        """The fields that the answers are scored on."""
        return list(self.rows[0].correct) if self.rows else []


@dataclass(frozen=True)
class Look:
    """A GRPO run's answers to its held-out documents after `step` steps, without gold."""

    step: int
    rows: tuple[Object, ...]  # id, output, reward, audit


@dataclass(frozen=True)
class Record:
    """A run. Files that it did not write are empty here.

    A demo's answers are those to its test set: its own validation answers are the student's too.
    """

    name: str
    path: Path
    manifest: Object
    metrics: tuple[Object, ...]  # one line per step
    timings: tuple[Object, ...]
    # the other JSON files by stem: report, comparison, learned, ...
    files: Mapping[str, Object]
    answers: tuple[Answers, ...]  # the run's own come first
    looks: tuple[Look, ...]
    control: Record | None = None

    @property
    def config(self) -> Object:
        """The resolved recipe; for a demo, its sizes."""
        return mapping(self.manifest, "config") or mapping(self.manifest, "demo")

    @property
    def recipe(self) -> str:
        """The recipe's name."""
        return str(self.config.get("recipe") or ("demo" if "demo" in self.manifest else "run"))

    @property
    def attempts(self) -> Sequence[Object]:
        """The attempts: each time the run was started or resumed."""
        attempts = self.manifest.get("attempts") or ()
        return [attempt for attempt in attempts if isinstance(attempt, dict)]

    @property
    def steps(self) -> int:
        """The last step that was logged."""
        return max(
            (int(row["step"]) for row in self.metrics if number(row.get("step")) is not None),
            default=0,
        )


def read_record(path: Path) -> Record:
    """Read the run in `path`. Raise RunError if there is none, DataError for a damaged file."""
    run = Run.open(path)
    folder = run.path
    names = [file for file in sorted(folder.glob("*.json")) if file.stem != "manifest"]
    inside = folder / "control"
    return Record(
        folder.name,
        folder,
        run.manifest,
        read_lines(folder / METRICS),
        read_lines(folder / "timings.jsonl"),
        {file.stem: read_object(file) for file in names},
        tuple(_answers(folder, demo="demo" in run.manifest)),
        tuple(_looks(folder)),
        read_record(inside) if (inside / "manifest.json").is_file() else None,
    )


def read_answers(path: Path) -> Answers:
    """Read a predictions file of `offapi eval`. Raise DataError for anything else."""
    return Answers(
        path.stem if path.stem != ANSWERS else path.absolute().parent.name,
        tuple(accuracy.read_predictions(path)),
    )


def read_kept(name: str, path: Path) -> Answers:
    """Read the answers that a demo or a comparison kept, with their cost."""
    note = path.with_suffix(".json")
    kept = read_object(note) if note.is_file() else {}
    answers = tuple(accuracy.read_predictions(path))
    return Answers(name, answers, mapping(kept, "cost") or kept)


def read_object(path: Path) -> Object:
    """Read the JSON object in a file. Raise DataError if there is none."""
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError.at(
            f"the file is unreadable ({error}).",
            path=path,
            next_step="Restore the file, or remove it.",
        ) from None
    if not isinstance(value, dict):
        raise DataError.at(
            "the file must hold a JSON object.",
            path=path,
            next_step="Restore the file, or remove it.",
        )
    return value


def read_lines(path: Path) -> tuple[Object, ...]:
    """Read the objects in a JSONL file, without a last line that is still being written.

    A missing file has none.
    """
    data = path.read_bytes() if path.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1].split(b"\n")
    return tuple(
        jsonl.parse(path, i, line).value for i, line in enumerate(whole, start=1) if line.strip()
    )


def mapping(value: Object, name: str) -> Object:
    """Return the object under `name`, or an empty one."""
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def number(value: Any) -> float | None:
    """Return `value` if it is a finite number, else None: an overflowed loss is logged as null."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _looks(folder: Path) -> list[Look]:
    files = sorted(folder.glob("heldout-[0-9]*.jsonl"))
    return [Look(int(file.stem[8:]), read_lines(file)) for file in files]


def _answers(folder: Path, *, demo: bool) -> list[Answers]:
    """Return the run's own answers, then those it was compared with."""
    own, path = [], folder / f"{ANSWERS}.jsonl"
    if path.is_file():
        own.append(Answers(folder.name, tuple(accuracy.read_predictions(path))))
    others = {
        file.stem.removeprefix(f"{ANSWERS}-"): file for file in folder.glob(f"{ANSWERS}-*.jsonl")
    }
    order = sorted(
        others, key=lambda name: (ASIDE.index(name) if name in ASIDE else len(ASIDE), name)
    )
    kept = [read_kept(name, others[name]) for name in order]
    return kept if demo and kept else [*own, *kept]
