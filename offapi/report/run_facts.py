"""The details of a run as tables, from its manifest and its other files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from offapi.report.render.table import Table, differing, flat, text
from offapi.report.run_files import Object, Record, mapping, number
from offapi.stats.interval import Interval
from offapi.text.display import duration, shorten

GIB = 2**30
MOST = 20  # lines shown of lists that have no upper bound


def fact_tables(record: Record) -> list[Table]:
    """Return the tables of a run."""
    return [
        table
        for table in (
            _made(record),
            _inputs(record),
            _attempts(record),
            _network(record),
            _times(record),
            _scorings(record),
            _grading(record),
            _keys(record),
        )
        if table.rows
    ]


def differing_keys(records: Sequence[Record]) -> Table | None:
    """Return the recipe's keys in which several runs differ."""
    columns = [
        {
            "backend": one.manifest.get("backend"),
            **flat(one.config),
            **flat(mapping(one.manifest, "sha256"), "sha256."),
        }
        for one in records
    ]
    names = [name for name in differing(columns) if name != "name"]
    if len(records) < 2 or not names:
        return None
    rows: list[tuple[str, ...]] = []
    for name in names:
        rows.append((name, *(_shown(column.get(name)) for column in columns)))
    return Table("Where the runs differ", ("key", *(one.name for one in records)), tuple(rows))


def _adapter(config: Mapping[str, Any], lora: Mapping[str, Any]) -> str | None:
    if config.get("full"):
        return "none: every weight was trained"
    if not lora.get("rank"):
        return None
    kinds = [name for key, name in (("rslora", "rsLoRA"), ("dora", "DoRA")) if lora.get(key)]
    return f"{' and '.join(kinds) or 'LoRA'}, rank {lora['rank']}, alpha {lora.get('alpha')}"


def _made(record: Record) -> Table:
    config, manifest = record.config, record.manifest
    lora = mapping(config, "lora")
    host = mapping(record.attempts[-1], "host") if record.attempts else {}
    named = {
        "recipe": record.recipe,
        "model": config.get("model"),
        "starts from": config.get("adapter"),
        "teacher": config.get("teacher"),
        "backend": manifest.get("backend"),
        "steps": f"{record.steps:,}",
        "learning rate": config.get("lr"),
        "epochs": config.get("epochs"),
        "batch": config.get("batch_size"),
        "adapter": _adapter(config, lora),
        "group": config.get("num_generations"),
        "loss": mapping(config, "loss").get("rule"),
        "seed": config.get("seed"),
        "precision": config.get("dtype"),
        "machine": _machine(host),
        "software": ", ".join(
            f"{k} {v}" for k, v in mapping(record.attempts[-1], "versions").items()
        )
        if record.attempts
        else None,
        "started": _when(manifest.get("created")),
        "folder": str(record.path),
    }
    rows = tuple(
        (name, text(value)) for name, value in named.items() if value is not None and value != ""
    )
    return Table("The run", (), rows)


def _inputs(record: Record) -> Table:
    hashes = mapping(record.manifest, "sha256")
    rows = tuple(
        (name, text(record.config.get(name)), text(value)) for name, value in hashes.items()
    )
    return Table("Inputs", ("input", "where", "SHA-256"), rows)


def _attempts(record: Record) -> Table:
    rows = [
        (
            str(i),
            _when(one.get("started")),
            _took(one),
            text(one.get("step", 0)),
            text(one.get("outcome", "not ended")),
        )
        for i, one in enumerate(record.attempts, start=1)
    ]
    return Table("Attempts", ("", "started", "took", "from step", "outcome"), tuple(rows[-MOST:]))


def _network(record: Record) -> Table:
    rows = []
    for one in record.attempts:
        seen = mapping(one, "network")
        rows += [
            ("refused", text(each.get("target")), text(each.get("caller")), text(each.get("count")))
            for each in seen.get("refused") or ()
        ]
        rows += [
            ("opened", f"{each.get('host')}:{each.get('port')}", "", text(each.get("connections")))
            for each in seen.get("opened") or ()
        ]
        rows += [
            (
                "started",
                text(each.get("program")),
                text(each.get("caller")),
                text(each.get("count")),
            )
            for each in seen.get("started") or ()
        ]
    return Table("Network", ("", "target", "requested by", "times"), tuple(rows[:MOST]))


def _times(record: Record) -> Table:
    """Return the seconds by phase, if the run recorded them."""
    total: Counter[str] = Counter()
    for row in record.timings:
        total.update(
            {
                k.removeprefix("seconds/"): number(v) or 0.0
                for k, v in row.items()
                if k.startswith("seconds/")
            }
        )
    whole = sum(total.values())
    rows = tuple(
        (name, f"{seconds:,.1f} s", f"{100 * seconds / whole:.0f}%")
        for name, seconds in total.most_common()
    )
    return Table("Where the time went", ("phase", "seconds", "share"), rows if whole else ())


def _scorings(record: Record) -> Table:
    scored = [one for one in record.manifest.get("scored") or () if isinstance(one, dict)]
    times = Counter(text(one.get("data")) for one in scored)
    last = {text(one.get("data")): one for one in scored}
    rows = tuple(
        (str(count), text(last[data].get("n")), _when(last[data].get("at")), data)
        for data, count in times.most_common()
    )
    return Table("Scorings", ("times", "documents", "last", "test set, SHA-256"), rows[:MOST])


def _grading(record: Record) -> Table:
    grading = record.files.get("grading", {})
    facts: dict[str, object] = {"answers": grading.get("rows"), "kept": grading.get("kept")}
    facts |= {f"dropped: {name}": count for name, count in mapping(grading, "dropped").items()}
    for check in grading.get("checks") or ():
        if isinstance(check, dict) and isinstance(check.get("passed"), dict):
            facts[f"pass “{check.get('name')}”"] = f"{Interval(**check['passed']).percent()}%"
    rows = tuple((name, text(value)) for name, value in facts.items() if value is not None)
    return Table("Graded answers, and those kept", (), rows)


def _keys(record: Record) -> Table:
    rows = tuple((name, text(value)) for name, value in flat(record.config).items())
    return Table("Every key of the recipe, as resolved", (), rows)


def seconds_taken(record: Record) -> float | None:
    """Return the seconds of all attempts that ended."""
    spans = [_seconds(attempt) for attempt in record.attempts]
    ended = [seconds for seconds in spans if seconds is not None]
    return sum(ended) if ended else None


def _took(one: Object) -> str:
    seconds = _seconds(one)
    return "—" if seconds is None else duration(seconds)


def _seconds(one: Object) -> float | None:
    try:
        return (
            datetime.fromisoformat(one["ended"]) - datetime.fromisoformat(one["started"])
        ).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None


def _when(value: object) -> str:
    """Format a time as `2026-11-26 00:21 UTC`; return anything else as it is."""
    try:
        return datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M %Z")
    except ValueError:
        return text(value)


def _machine(host: Object) -> str:
    memory = number(host.get("memory_bytes"))
    known = [text(host[name]) for name in ("system", "machine") if host.get(name)]
    known += (
        [f"{text(host['cpus'])} CPU{'' if host['cpus'] == 1 else 's'}"] if host.get("cpus") else []
    )
    known += [f"{memory / GIB:.0f} GiB"] if memory else []
    known += [f"Python {text(host['python'])}"] if host.get("python") else []
    return ", ".join(known)


def _shown(value: object) -> str:
    return shorten(text(value), 80, "...")
