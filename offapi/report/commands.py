"""The commands that reproduce a run or a comparison, from its resolved keys.

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
    """A text to copy, and what it does."""

    what: str
    text: str


def run_commands(first: Record, named: Sequence[Path]) -> list[Command]:
    """Return how to train, resume and score the run, and how to write this report again."""
    report = _report(named)
    if first.recipe == "demo":
        seed = text(first.config.get("seed", 0))
        return [Command("The whole demo", _line("demo", *_backend(first), "--seed", seed)), report]
    if not first.config:
        return [report]
    train = ["train", RECIPE, *_backend(first)]
    finished = bool(first.attempts) and first.attempts[-1].get("outcome") == "finished"
    what = f"The resolved recipe: save it as {RECIPE} (change its name to train a new run)"
    found = [Command(what, toml(first.config)), Command("Train", _line(*train))]
    if not finished:
        found.append(_resume(first, train))
    return [*found, *_score(first), report]


def _resume(record: Record, train: Sequence[str]) -> Command:
    """Return how to resume a run; after a failure, not by what would fail again."""
    error = mapping(record.attempts[-1], "error") if record.attempts else {}
    allow = re.search(r"--allow \w+", text(error.get("next") or ""))
    if error.get("code") == "gate" and allow:
        what = "Resume this run in spite of the gate that stopped it"
        return Command(what, _line(*train, "--resume", *allow[0].split()))
    what = "Resume this run, once the reason of its failure is removed"
    return Command(what if error else "Resume this run", _line(*train, "--resume"))


def comparison_commands(result: Object, named: Sequence[Path]) -> list[Command]:
    """Return how to compare again, and how to write this report again."""
    config, backend = mapping(result, "config"), result.get("backend")
    if not config:
        return [_report(named)]
    options = ["--backend", text(backend)] if backend else []
    return [
        Command(f"The resolved comparison: save it as {COMPARISON}", toml(config)),
        Command("Compare (finished arms are reused)", _line("compare", COMPARISON, *options)),
        _report(named),
    ]


def toml(config: Mapping[str, Any]) -> str:
    """Return a recipe's keys as TOML, tables last, without keys that have no value."""
    plain = {name: value for name, value in config.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in config.items() if isinstance(value, dict)}
    parts = [
        _pairs(plain),
        *(f"\n[{_key(name)}]\n{_pairs(value)}" for name, value in tables.items()),
    ]
    return "".join(parts)


def _score(record: Record) -> list[Command]:
    config = record.config
    result = record.path / ("model" if config.get("full") else "adapter")
    if not (config.get("task") and config.get("val") and result.is_dir()):
        return []
    data = ["--task", config["task"], "--data", config["val"]]
    model = ["--model", config.get("model", "demo"), "--adapter", str(result)]
    if config.get("full"):
        model = ["--model", str(result)]
    out = [*_backend(record), "--out", "predictions.jsonl"]
    return [Command("Score the adapter", _line("eval", *map(text, (*data, *model)), *out))]


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
    # JSON is TOML for strings, numbers, booleans and arrays, except that TOML escapes DEL.
    if isinstance(value, dict):
        pairs = [f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")
