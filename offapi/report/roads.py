"""What `offapi compare` found (compare.json), as one table: a column for each road, and the references."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offapi.report.reading import Object, mapping, number
from offapi.report.scale import brief
from offapi.report.tables import Table, text
from offapi.stats.interval import Interval

FILE = "compare.json"


@dataclass(frozen=True)
class Roads:
    """The table, and what to make of it."""

    table: Table
    verdicts: tuple[str, ...]


def arms(told: Object) -> list[Path]:
    """The folders of the arms' runs, the one to take first."""
    rows = mapping(told, "rows")
    order = sorted(rows, key=lambda name: name != told.get("take"))
    paths = [mapping(mapping(rows, name), "arm").get("path") for name in order]
    return [Path(path) for path in paths if isinstance(path, str)]


def read(told: Object) -> Roads | None:
    """None where there is none, or none that is understood."""
    rows = {name: row for name, row in mapping(told, "rows").items() if isinstance(row, dict)}
    if not rows:
        return None
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        left = [f"{name} is left out: {text(why)}." for name, why in mapping(told, "left_out").items()]
        said = [f"{name}: {text(row['verdict'])}." for name, row in rows.items() if row.get("verdict")]
        take = [f"Take {text(told['take'])}."] if told.get("take") else []
        return Roads(_table(told, rows), (*said, *left, *take))
    return None


def _table(told: Object, rows: Mapping[str, Object]) -> Table:
    lines = {
        "where its rows come from": [text(row.get("source")) for row in rows.values()],
        "rows used": [_used(mapping(row, "arm")) for row in rows.values()],
        "human minutes (assumed)": [_figure(row, "cost", "human_minutes") for row in rows.values()],
        "machine minutes": [_figure(row, "cost", "machine_minutes") for row in rows.values()],
        "kWh": [_figure(row, "cost", "kwh") for row in rows.values()],
        "teacher's price, $": [_figure(row, "cost", "dollars") for row in rows.values()],
    }
    fields = dict.fromkeys(field for row in rows.values() for field in mapping(mapping(row, "report"), "fields"))
    for field in fields:
        lines[field] = [_rate(mapping(mapping(row, "report"), "fields").get(field)) for row in rows.values()]
    lines["all fields"] = [_rate(mapping(row, "report").get("all_fields")) for row in rows.values()]
    for name, key in (("less the best, points", "to_best"), ("less the recorded, points", "to_recorded")):
        lines[name] = [_apart(row.get(key)) for row in rows.values()]
    known = tuple((name, *cells) for name, cells in lines.items() if set(cells) != {"—"})
    documents = mapping(told, "test").get("documents")
    note = f"{documents} test documents. Percent right and differences with 95% intervals." if documents else ""
    return Table("The roads, side by side", ("", *rows), known, note)


def _used(arm: Object) -> str:
    used, whole = arm.get("rows"), arm.get("of")
    return "—" if used is None else text(used) if used == whole else f"{used} of {whole}"


def _figure(row: Object, part: str, key: str) -> str:
    value = number(mapping(row, part).get(key))
    return "—" if value is None else brief(value)


def _rate(value: Any) -> str:
    return Interval(**value).percent() if isinstance(value, dict) else "—"


def _apart(value: Any) -> str:
    return Interval(**value["difference"]).points() if isinstance(value, dict) else "—"
