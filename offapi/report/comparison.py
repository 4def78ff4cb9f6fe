"""What `offapi compare` left in a folder: its table
(compare.json), the arms' runs, and the answers to the test set.

Left out: judging. What is shown of verdicts was said by the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from offapi.errors import DataError
from offapi.evaluation import accuracy
from offapi.report.document_files import DocumentSource
from offapi.report.headline import model_name
from offapi.report.render.axes import brief
from offapi.report.render.table import Table, text
from offapi.report.run_files import Answers, Object, mapping, number, read_object
from offapi.stats.interval import Interval
from offapi.training.run import MANIFEST

FILE = "compare.json"
REFERENCES = (
    "recorded",
    "teacher",
    "base",
)  # what the best road is set against: the first that is there


@dataclass(frozen=True)
class ComparisonTable:
    """The table, and what to make of it."""

    table: Table
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonFolder:
    """A folder that a comparison left, and what its compare.json says."""

    folder: Path
    told: Object

    @cached_property
    def rows(self) -> Mapping[str, Object]:
        """The table's rows by name: references and roads."""
        return {
            name: row for name, row in mapping(self.told, "rows").items() if isinstance(row, dict)
        }

    @cached_property
    def arms(self) -> Mapping[str, Path]:
        """The runs of the roads that are still there, the one to take first."""
        order = sorted(self.rows, key=lambda name: name != self.told.get("take"))
        paths = {name: mapping(self.rows[name], "arm").get("path") for name in order}
        return {
            name: Path(path)
            for name, path in paths.items()
            if isinstance(path, str) and _is_run(Path(path))
        }

    @cached_property
    def answers(self) -> list[Answers]:
        """The rows' answers to the test set: the best road's, the reference's, then the others'."""
        roads = sorted(
            (name for name in self.rows if "arm" in self.rows[name]), key=self._rate, reverse=True
        )
        first = [*roads[:1], *[name for name in REFERENCES if name in self.rows][:1]]
        paths = {
            name: self.rows[name].get("predictions") for name in dict.fromkeys([*first, *self.rows])
        }
        files = {name: Path(path) for name, path in paths.items() if isinstance(path, str)}
        return [
            Answers(name, tuple(accuracy.read_predictions(path)))
            for name, path in files.items()
            if path.is_file()
        ]

    @property
    def test(self) -> DocumentSource | None:
        """Where the test documents are; None where nobody noted it."""
        found = mapping(self.told, "test")
        data, digest = found.get("data"), found.get("sha256")
        return (
            DocumentSource(Path(data), frozenset({digest} if digest else ()))
            if isinstance(data, str)
            else None
        )

    @property
    def lede(self) -> str:
        """The roads, the student and the test set, in a sentence."""
        *others, last = [name for name in self.rows if "arm" in self.rows[name]]
        roads = f"{', '.join(others)} and {last}" if others else last
        n, on = mapping(self.told, "test").get("documents"), self.told.get("backend")
        where = f"{model_name(self.told.get('model', 'demo'))}{f' on {text(on)}' if on else ''}"
        return f"Roads compared: {roads}; {where}{f', {n} test documents' if n else ''}."

    def _rate(self, name: str) -> tuple[float, float, bool]:
        """What the best road is chosen by; of equals it
        is the one that the comparison calls the best.
        """
        report = mapping(self.rows[name], "report")
        rates = (number(mapping(report, "all_fields").get("mean")), number(report.get("mean")))
        return rates[0] or 0.0, rates[1] or 0.0, name == self.told.get("best")


def find_comparison(folder: Path) -> ComparisonFolder | None:
    """The comparison in `folder`; None where there is none.

    DataError where its arms' runs are gone.
    """
    if not (folder / FILE).is_file() or _is_run(folder):
        return None
    found = ComparisonFolder(folder.absolute(), read_object(folder / FILE))
    if not found.arms:
        step = "Name the folders of its arms, or run the comparison again."
        raise DataError.at(
            "the runs it compares are not there.", path=folder / FILE, next_step=step
        )
    return found


def read_table(told: Object) -> ComparisonTable | None:
    """None where there is none, or none that is understood."""
    rows = {name: row for name, row in mapping(told, "rows").items() if isinstance(row, dict)}
    if not rows:
        return None
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        left = [
            f"{name} is left out: {text(why)}." for name, why in mapping(told, "left_out").items()
        ]
        said = [
            f"{name}: {text(row['verdict'])}." for name, row in rows.items() if row.get("verdict")
        ]
        take = [f"Take {text(told['take'])}."] if told.get("take") else []
        return ComparisonTable(_table(told, rows), (*said, *left, *take))
    return None


def _is_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _table(told: Object, rows: Mapping[str, Object]) -> Table:
    lines = {
        "where its rows come from": [text(row.get("source")) for row in rows.values()],
        "rows used": [_used(mapping(row, "arm")) for row in rows.values()],
        "human minutes (assumed)": [_figure(row, "cost", "human_minutes") for row in rows.values()],
        "machine minutes": [_figure(row, "cost", "machine_minutes") for row in rows.values()],
        "kWh": [_figure(row, "cost", "kwh") for row in rows.values()],
        "teacher's price, $": [_figure(row, "cost", "dollars") for row in rows.values()],
    }
    fields = dict.fromkeys(
        field for row in rows.values() for field in mapping(mapping(row, "report"), "fields")
    )
    for field in fields:
        lines[field] = [
            _rate(mapping(mapping(row, "report"), "fields").get(field)) for row in rows.values()
        ]
    lines["all fields"] = [_rate(mapping(row, "report").get("all_fields")) for row in rows.values()]
    for name, key in (
        ("less the best, points", "to_best"),
        ("less the recorded, points", "to_recorded"),
    ):
        lines[name] = [_apart(row.get(key)) for row in rows.values()]
    known = tuple((name, *cells) for name, cells in lines.items() if set(cells) != {"—"})
    documents = mapping(told, "test").get("documents")
    note = (
        f"{documents} test documents. Percent right and differences with 95% intervals."
        if documents
        else ""
    )
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
