"""The commands that make a run or a comparison again, from its resolved keys.

Left out: fetching models and data.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from offapi.report.render.table import text
from offapi.report.run_files import Object, Record, mapping

RECIPE, COMPARISON = "recipe.toml", "compare.toml"


@dataclass(frozen=True)
class Command:
    """What it is for, and the text to copy."""

    what: str
    text: str


def run_commands(first: Record, named: Sequence[Path]) -> list[Command]:
    """How to train, resume and score a run again, and
    to write this report, of the paths that were named.
    """
    report = _report(named)
    if first.recipe == "demo":
        seed = text(first.config.get("seed", 0))
        return [Command("The whole demo", _line("demo", *_backend(first), "--seed", seed)), report]
    if not first.config:
        return [report]
    train = ["train", RECIPE, *_backend(first)]
    finished = bool(first.attempts) and first.attempts[-1].get("outcome") == "finished"
    return [
        Command(
            f"The recipe as it was resolved: save it as {RECIPE}, under another name to train anew",
            toml(first.config),
        ),
        Command("Train", _line(*train)),
        *([] if finished else [Command("Go on with this run", _line(*train, "--resume"))]),
        *_score(first),
        report,
    ]


def comparison_commands(told: Object, named: Sequence[Path]) -> list[Command]:
    """How to compare again, and to write this report, of the paths that were named."""
    config, backend = mapping(told, "config"), told.get("backend")
    words = ["compare", COMPARISON, *(["--backend", text(backend)] if backend else [])]
    again = [
        Command(f"The comparison as it was resolved: save it as {COMPARISON}", toml(config)),
        Command("Compare, with the arms that are there taken as they are", _line(*words)),
    ]
    return [*(again if config else []), _report(named)]


def toml(config: Mapping[str, Any]) -> str:
    """A recipe's keys as TOML, tables last; keys without a value are left out."""
    plain = {name: value for name, value in config.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in config.items() if isinstance(value, dict)}
    parts = [
        _pairs(plain),
        *(f"\n[{_key(name)}]\n{_pairs(value)}" for name, value in tables.items()),
    ]
    return "".join(parts)


def _score(record: Record) -> list[Command]:
    config = record.config
    if not (config.get("task") and config.get("val") and (record.path / "adapter").is_dir()):
        return []
    words = [
        "--task",
        config["task"],
        "--data",
        config["val"],
        "--model",
        config.get("model", "demo"),
    ]
    adapter = [
        "--adapter",
        str(record.path / "adapter"),
        *_backend(record),
        "--out",
        "predictions.jsonl",
    ]
    return [Command("Score the adapter", _line("eval", *map(text, words), *adapter))]


def _report(named: Sequence[Path]) -> Command:
    return Command("This report", _line("report", *(str(path.absolute()) for path in named)))


def _backend(record: Record) -> list[str]:
    name = record.manifest.get("backend")
    return ["--backend", text(name)] if name else []


def _line(*words: str) -> str:
    return " ".join(["offapi", *map(shlex.quote, words)])


def _pairs(values: Mapping[str, Any]) -> str:
    return "".join(
        f"{_key(name)} = {_value(value)}\n" for name, value in values.items() if value is not None
    )


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    """JSON is TOML for strings, numbers, booleans and
    arrays, but for DEL, which TOML wants escaped.
    """
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")
