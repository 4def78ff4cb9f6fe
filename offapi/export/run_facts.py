"""What is known of a run, for programs and for its model card: data, recipe, figures, promise.

Left out: texts of documents, and paths of this machine, of which only the last part is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from offapi.confidence import promise
from offapi.export.source import ExportSource
from offapi.training.run import Run

REPORT = "report.json"
PLACES = ("out", "name")  # keys that say where the run was written


def describe(source: ExportSource) -> dict[str, Any]:
    """Return the facts of what is exported, with None for what no run says."""
    facts = source.answering.facts
    adapter = facts["adapter"] and {"sha256": facts["adapter"]["sha256"]}
    base = {**facts["base"], "license": source.answering.model.license or None}
    about: dict[str, Any] = {"name": source.name, "base": base, "adapter": adapter}
    run = source.run
    return {**about, **(_of_run(run) if run else {"run": None}), "limits": _limits(source)}


def _of_run(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    config = {
        name: _without_folders(value)
        for name, value in manifest.get("config", {}).items()
        if name not in PLACES
    }
    hashes = manifest.get("sha256", {})
    files = {name: {"file": config.get(name), "sha256": hashes[name]} for name in hashes}
    about = {"created": manifest.get("created"), "backend": manifest.get("backend")}
    times = {each.get("data"): each.get("n") for each in manifest.get("scored", [])}
    return {
        "run": {**about, "recipe": config.pop("recipe", None), "config": config, "files": files},
        "figures": _figures(run.path / REPORT),
        "test_sets_scored": len(times),
        "calibration": _calibration(run.path / promise.FILE),
    }


def _without_folders(value: Any) -> Any:
    """Return a key's value with the last part of every path in it."""
    if isinstance(value, str):
        return Path(value).name if "/" in value else value
    if isinstance(value, Mapping):
        return {name: _without_folders(each) for name, each in value.items()}
    return [_without_folders(each) for each in value] if isinstance(value, list) else value


def _figures(path: Path) -> dict[str, Any] | None:
    """Return the run's accuracy on its validation documents; None where it was not measured."""
    try:
        report = orjson.loads(path.read_bytes())
        figures = {name: report[name] for name in ("n", "mean", "all_fields", "fields")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return figures


def _calibration(path: Path) -> dict[str, Any] | None:
    """Return what the run promises; None where it was not calibrated."""
    if not path.is_file():
        return None
    made = promise.read(path)
    fields = {
        name: {"values": asdict(known.values), "nulls": asdict(known.nulls)}
        for name, known in made.fields.items()
    }
    withdrawn = made.withdrawn and asdict(made.withdrawn)
    return {
        "error": made.error,
        "delta": made.delta,
        "constrain": made.made_for.constrain,
        "documents": made.data.get("documents"),
        "whole": asdict(made.whole),
        "fields": fields,
        "withdrawn": withdrawn,
    }


def _limits(source: ExportSource) -> list[str]:
    """Return, as sentences, what was not measured or does not come along."""
    said = [
        "Measured on documents like those of the run's files; on others accuracy is not known.",
        "Safety, fairness and general knowledge were not measured.",
        "The comparison with the run is in float32, on fixed prompts; speed was not measured.",
    ]
    if source.run is None:
        said[0] = "No run trained this model here, so nothing is known of its accuracy."
        return said
    said.append(
        "Answers bound by a schema or a document, evidence and confidence are offapi's, and do not"
        " come along: other tools answer freely."
    )
    bits = source.trained.bits
    if bits is not None and source.answering.quantize is None:
        said.append(
            f"The adapter was trained on the base in {bits} bits; the run's figures are of that,"
            " and the export is on the base's own weights."
        )
    if source.adapter is not None and source.adapter.parent.name == "checkpoints":
        said.append("This is a checkpoint; the figures are those of the finished run.")
    return said
