"""A run's calibration: what is accepted, how well confidence sorts, and if it means what it says.

Left out: fitting it (`offapi.calibrate`).
"""

from __future__ import annotations

from dataclasses import dataclass

from offapi.confidence import promise
from offapi.confidence.promise import Promise
from offapi.confidence.quality import ERRORS, PARTS
from offapi.confidence.table import HEAD, promise_lines, promise_rows
from offapi.errors import OffapiError
from offapi.report.render.charts import SLOTS, Chart, Series
from offapi.report.render.table import Table
from offapi.report.run_files import Record


@dataclass(frozen=True)
class ConfidenceSection:
    """The promise in a table and sentences, figures behind it, and two charts."""

    tables: tuple[Table, ...]
    lines: tuple[str, ...]
    charts: tuple[Chart, ...]


def confidence_section(record: Record) -> ConfidenceSection | None:
    """Return the section of a calibrated run; None for others, and for a damaged calibration."""
    path = record.path / promise.FILE
    try:
        given = promise.read(path) if path.is_file() else None
    except OffapiError:
        return None
    if given is None or not given.quality:
        return None
    lines = tuple(promise_lines(given))
    if given.withdrawn is not None:
        gone = given.withdrawn
        lines = (f"The promise was withdrawn on {gone.when}: {gone.why}.", *lines)
    note = f"Accepted so that at most {given.error:.1%} are wrong, with 95% intervals of the share."
    tables = (
        Table("", HEAD, tuple(promise_rows(given)), note),
        _coverage(given),
        _wrong(given),
    )
    return ConfidenceSection(tables, lines, (_reliability(given), _curve(given)))


def _coverage(given: Promise) -> Table:
    """Return which share may be accepted at each error, by the model and by its control."""
    rows = []
    for name, each in given.quality.items():
        for score, ranking in (("confidence", each.model), ("log-probability", each.logprob)):
            rows.append((name, score, *(share.percent() for share in ranking.accepted)))
    head = ("field", "sorted by", *(f"at most {error:.0%} wrong" for error in ERRORS))
    return Table("Share accepted", head, tuple(rows), "Percent, with 95% intervals.")


def _wrong(given: Promise) -> Table:
    """Return the share that is wrong among the surest answers."""
    shown = (1, 2, 5, 8, PARTS)
    rows = []
    for name, each in given.quality.items():
        rows.append((name, *(each.model.wrong[part - 1].percent() for part in shown)))
    head = ("field", *(f"surest {100 * part // PARTS}%" for part in shown))
    return Table("Share wrong among the surest", head, tuple(rows), "With 95% intervals.")


def _reliability(given: Promise) -> Chart:
    series = []
    for slot, (name, each) in enumerate(list(given.quality.items())[:SLOTS]):
        points = tuple((one.confidence, one.right.mean) for one in each.bins)
        series.append(Series(name, points, slot, marks=True))
    note = "On the diagonal, a confidence of 0.9 is right in 90%."
    return Chart("Share right by confidence", tuple(series), x="confidence", share=True, note=note)


def _curve(given: Promise) -> Chart:
    series = []
    for slot, (name, each) in enumerate(list(given.quality.items())[:SLOTS]):
        parts = enumerate(each.model.wrong, start=1)
        points = tuple((part / PARTS, wrong.mean) for part, wrong in parts)
        series.append(Series(name, points, slot, marks=True))
    return Chart("Share wrong by share accepted", tuple(series), x="share accepted")
