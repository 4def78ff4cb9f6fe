"""The folder of `offapi compare`: its table (compare.json), the arms' runs, the test answers.

Left out: verdicts of its own; those shown are the comparison's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from offapi.errors import DataError
from offapi.report.document_files import DocumentSource, places_around
from offapi.report.headline import model_name
from offapi.report.render.axes import brief
from offapi.report.render.table import Table, text
from offapi.report.run_files import Answers, Object, mapping, number, read_kept, read_object
from offapi.stats.interval import Interval
from offapi.text.display import plural
from offapi.training.run import MANIFEST

FILE = "compare.json"
# The best arm is compared with the first of these that exists.
REFERENCES = ("recorded", "teacher", "base")


@dataclass(frozen=True)
class ComparisonTable:
    """The table, and its verdicts."""

    table: Table
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonFolder:
    """A comparison's folder, and its compare.json."""

    folder: Path
    result: Object

    @cached_property
    def rows(self) -> Mapping[str, Object]:
        """The table's rows by name: references and arms."""
        return {
            name: row for name, row in mapping(self.result, "rows").items() if isinstance(row, dict)
        }

    @cached_property
    def arms(self) -> Mapping[str, Path]:
        """The arms' runs that still exist, the one to take first."""
        order = sorted(self.rows, key=lambda name: name != self.result.get("take"))
        paths = {name: mapping(self.rows[name], "arm").get("path") for name in order}
        return {
            name: Path(path)
            for name, path in paths.items()
            if isinstance(path, str) and _is_run(Path(path))
        }

    @cached_property
    def answers(self) -> list[Answers]:
        """The answers to the test set: the best arm's, the reference's, then the others'."""
        arms = [name for name in self.rows if "arm" in self.rows[name]]
        references = [name for name in REFERENCES if name in self.rows]
        first = [*sorted(arms, key=self._rate, reverse=True)[:1], *references[:1]]
        paths = {
            name: self.rows[name].get("predictions") for name in dict.fromkeys([*first, *self.rows])
        }
        files = {name: Path(path) for name, path in paths.items() if isinstance(path, str)}
        return [read_kept(name, path) for name, path in files.items() if path.is_file()]

    @property
    def test(self) -> DocumentSource | None:
        """Where the test documents are; None if it was not recorded."""
        test = mapping(self.result, "test")
        data, digest = test.get("data"), test.get("sha256")
        return (
            DocumentSource(
                Path(data), frozenset({digest} if digest else ()), places_around(self.folder)
            )
            if isinstance(data, str)
            else None
        )

    @property
    def lede(self) -> str:
        """The recipes, the student and the test set, in a sentence."""
        *others, last = [name for name in self.rows if "arm" in self.rows[name]]
        recipes = f"{', '.join(others)} and {last}" if others else last
        n, on = mapping(self.result, "test").get("documents"), self.result.get("backend")
        where = f"{model_name(self.result.get('model', 'demo'))}{f' on {text(on)}' if on else ''}"
        scored = f", {plural(n, 'test document')}" if n else ""
        return f"Recipes compared: {recipes}; {where}{scored}."

    def _rate(self, name: str) -> tuple[float, float, bool]:
        """Return the key by which the best arm is found; of equals, the comparison's own best."""
        report = mapping(self.rows[name], "report")
        rates = (number(mapping(report, "all_fields").get("mean")), number(report.get("mean")))
        return rates[0] or 0.0, rates[1] or 0.0, name == self.result.get("best")


def find_comparison(folder: Path) -> ComparisonFolder | None:
    """Return the comparison in `folder`; None if there is none.

    Raise DataError if its arms' runs are missing.
    """
    if not (folder / FILE).is_file() or _is_run(folder):
        return None
    comparison = ComparisonFolder(folder.absolute(), read_object(folder / FILE))
    if not comparison.arms:
        step = "Name the folders of its arms, or run the comparison again."
        raise DataError.at("the runs it compares are missing.", path=folder / FILE, next_step=step)
    return comparison


def read_table(result: Object) -> ComparisonTable | None:
    """Return the table; None if there is none, or if it is not understood."""
    rows = {name: row for name, row in mapping(result, "rows").items() if isinstance(row, dict)}
    if not rows:
        return None
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        left = [
            f"{name} is left out: {text(why)}." for name, why in mapping(result, "left_out").items()
        ]
        verdicts = [
            f"{name}: {text(row['verdict'])}." for name, row in rows.items() if row.get("verdict")
        ]
        take = [f"Take {text(result['take'])}."] if result.get("take") else []
        return ComparisonTable(_table(result, rows), (*verdicts, *left, *take))
    return None


def _is_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _table(result: Object, rows: Mapping[str, Object]) -> Table:
    lines: dict[str, list[str]] = {}
    lines["source of its rows"] = [text(row.get("source")) for row in rows.values()]
    lines["rows used"] = [_used(mapping(row, "arm")) for row in rows.values()]
    for name, key in (
        ("human minutes (assumed)", "human_minutes"),
        ("machine minutes", "machine_minutes"),
        ("kWh", "kwh"),
        ("teacher's price, $", "dollars"),
    ):
        lines[name] = [_figure(row, "cost", key) for row in rows.values()]
    fields = dict.fromkeys(
        field for row in rows.values() for field in mapping(mapping(row, "report"), "fields")
    )
    for field in fields:
        lines[field] = [
            _rate(mapping(mapping(row, "report"), "fields").get(field)) for row in rows.values()
        ]
    lines["all fields"] = [_rate(mapping(row, "report").get("all_fields")) for row in rows.values()]
    for name, key in (
        ("minus the best, points", "to_best"),
        ("minus the recorded, points", "to_recorded"),
    ):
        lines[name] = [_difference(row.get(key)) for row in rows.values()]
    known = tuple((name, *cells) for name, cells in lines.items() if set(cells) != {"—"})
    documents = mapping(result, "test").get("documents")
    note = (
        f"{plural(documents, 'test document')}. Percent right and differences with 95% intervals."
        if documents
        else ""
    )
    return Table("The recipes, side by side", ("", *rows), known, note)


def _used(arm: Object) -> str:
    used, whole = arm.get("rows"), arm.get("of")
    return "—" if used is None else text(used) if used == whole else f"{used} of {whole}"


def _figure(row: Object, part: str, key: str) -> str:
    value = number(mapping(row, part).get(key))
    return "—" if value is None else brief(value)


def _rate(value: Any) -> str:
    return Interval(**value).percent() if isinstance(value, dict) else "—"


def _difference(value: Any) -> str:
    return Interval(**value["difference"]).points() if isinstance(value, dict) else "—"
