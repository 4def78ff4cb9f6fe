"""What a run's folder holds, read without running anything and without taking its lock.

A run that is still going, or that failed half-way, reads as far as it came. Left out: checkpoints
and adapters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    @property
    def by_id(self) -> dict[str, Prediction]:
        """The answers by document; of several samples the first."""
        found: dict[str, Prediction] = {}
        for row in self.rows:
            found.setdefault(row.id, row)
        return found

    @property
    def fields(self) -> list[str]:
        """What the answers are scored on."""
        return list(self.rows[0].correct) if self.rows else []


@dataclass(frozen=True)
class Look:
    """A GRPO run's answers to its held-out documents after
    `step` steps, with no gold to say right or wrong.
    """

    step: int
    rows: tuple[Object, ...]  # id, output, reward, audit


@dataclass(frozen=True)
class Record:
    """A run. Files that it did not write are empty here."""

    name: str
    path: Path
    manifest: Object
    metrics: tuple[Object, ...]  # a line a step
    timings: tuple[Object, ...]
    files: Mapping[
        str, Object
    ]  # the JSON objects beside the manifest, by stem: report, comparison, learned, ...
    answers: tuple[Answers, ...]  # the run's own first
    looks: tuple[Look, ...]
    control: Record | None = None

    @property
    def config(self) -> Object:
        """The recipe as resolved; of a demo its sizes."""
        return mapping(self.manifest, "config") or mapping(self.manifest, "demo")

    @property
    def recipe(self) -> str:
        """Its name."""
        return str(self.config.get("recipe") or ("demo" if "demo" in self.manifest else "run"))

    @property
    def attempts(self) -> Sequence[Object]:
        """Every time the run was worked on."""
        return [one for one in self.manifest.get("attempts") or () if isinstance(one, dict)]

    @property
    def steps(self) -> int:
        """The last step that was logged."""
        return max(
            (int(row["step"]) for row in self.metrics if number(row.get("step")) is not None),
            default=0,
        )


def read_record(path: Path) -> Record:
    """The run in `path`. RunError where there is none, DataError for a file that is damaged."""
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
        tuple(_answers(folder)),
        tuple(
            Look(int(file.stem[8:]), read_lines(file))
            for file in sorted(folder.glob("heldout-[0-9]*.jsonl"))
        ),
        read_record(inside) if (inside / "manifest.json").is_file() else None,
    )


def read_answers(path: Path) -> Answers:
    """A predictions file that `offapi eval` wrote. DataError for anything else."""
    return Answers(
        path.stem if path.stem != ANSWERS else path.absolute().parent.name,
        tuple(accuracy.read_predictions(path)),
    )


def read_object(path: Path) -> Object:
    """The JSON object in a file. DataError where there is none."""
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError.at(
            f"unreadable ({error}).", path=path, next_step="Restore the file, or remove it."
        ) from None
    if not isinstance(value, dict):
        raise DataError.at(
            "not a JSON object.", path=path, next_step="Restore the file, or remove it."
        )
    return value


def read_lines(path: Path) -> tuple[Object, ...]:
    """The objects in a JSONL file, none where it is missing;
    a last line that is still being written is left out.
    """
    data = path.read_bytes() if path.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1].split(b"\n")
    return tuple(
        jsonl.parse(path, i, line).value for i, line in enumerate(whole, start=1) if line.strip()
    )


def mapping(value: Object, name: str) -> Object:
    """The object under `name`, or an empty one."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def number(value: Any) -> float | None:
    """A finite number, or None: what is logged of a loss that overflowed is null."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _answers(folder: Path) -> list[Answers]:
    """The run's own answers first, then those of whatever it was measured against."""
    found = []
    if (folder / f"{ANSWERS}.jsonl").is_file():
        found.append(
            Answers(folder.name, tuple(accuracy.read_predictions(folder / f"{ANSWERS}.jsonl")))
        )
    others = {
        file.stem.removeprefix(f"{ANSWERS}-"): file for file in folder.glob(f"{ANSWERS}-*.jsonl")
    }
    order = sorted(
        others, key=lambda name: (ASIDE.index(name) if name in ASIDE else len(ASIDE), name)
    )
    return [
        *found,
        *(Answers(name, tuple(accuracy.read_predictions(others[name]))) for name in order),
    ]
