"""A folder as `offapi compare` leaves it, written by hand: arms with test answers, compare.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import recipe_folder

from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import Prediction, Report
from offapi.files.hashing import sha256_path
from offapi.training.run import Run

RECIPES = ("sft", "distill", "filtered_sft", "grpo")
FACTS: Mapping[str, Any] = {
    "outcome": "finished",
    "network": {"guard": True, "refused": [], "opened": []},
}


def answer(row: Mapping[str, Any], **changes: Any) -> Prediction:
    """Return the gold of a document with some fields changed, as a prediction."""
    gold = row["gold"]
    value = {**gold, **changes}
    correct = {field: value[field] == gold[field] for field in gold}
    return Prediction(row["id"], orjson.dumps(value).decode(), value, correct, gold)


def write(
    folder: Path, test: Sequence[Mapping[str, Any]], answers: Mapping[str, Sequence[Prediction]]
) -> Path:
    """Write the comparison `runs/compare` with the rows `answers`, and return its folder.

    Rows named in `RECIPES` are arms.
    """
    data = recipe_folder.write_jsonl(folder / "test.jsonl", [dict(row) for row in test])
    reports = {name: Report.of(predictions) for name, predictions in answers.items()}
    rows = {name: _row(folder / "runs", name, report) for name, report in reports.items()}
    facts = {
        "backend": "torch",
        "model": "/models/tiny",
        "test": {"documents": len(test), "data": str(data), "sha256": sha256_path(data)},
        "best": next(iter(rows)),
        "take": next(iter(rows)),
        "rows": rows,
        "left_out": {},
    }
    path = folder / "runs" / "compare"
    path.mkdir(parents=True, exist_ok=True)
    (path / "compare.json").write_bytes(orjson.dumps(facts))
    return path


def change(path: Path, **facts: Any) -> None:
    """Change facts in the comparison's file."""
    known = orjson.loads((path / "compare.json").read_bytes())
    (path / "compare.json").write_bytes(orjson.dumps({**known, **facts}))


def _row(runs: Path, name: str, report: Report) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source": "somewhere",
        "report": report.as_dict(),
        "verdict": f"{name} is judged",
    }
    run = Run.create(
        runs / "arms", f"{name.replace('_', '-')}-0123456789ab", {"config": {"recipe": name}}
    )
    path = run.path / "test-0123456789ab.jsonl"
    path.write_bytes(accuracy.predictions_jsonl(report.predictions))
    arm = {"arm": {"path": str(run.path), "rows": 8, "of": 8}} if name in RECIPES else {}
    return {**row, "predictions": str(path), **arm}
