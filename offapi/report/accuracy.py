"""How much is right: each system's rates by field,
and its difference to the run's own, with intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from offapi.errors import DataError
from offapi.evaluation import compare
from offapi.evaluation.accuracy import Prediction, Report
from offapi.report.render.charts import SLOTS, draw_intervals, swatch
from offapi.report.render.table import Table
from offapi.report.run_files import Answers, Object, Record, mapping
from offapi.stats.interval import Interval

ALL, MEAN = compare.ALL, compare.MEAN


@dataclass(frozen=True)
class Rates:
    """A system's accuracy: `fields` with all of them together last, and their mean."""

    name: str
    n: int
    mean: float
    fields: Mapping[str, Interval]


@dataclass(frozen=True)
class Difference:
    """Two systems on the same documents, as `offapi eval --against` tells it."""

    table: Table
    headline: str
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class Accuracy:
    """All systems side by side."""

    svg: Markup
    legend: tuple[tuple[str, Markup], ...]
    table: Table


def accuracy_rates(record: Record, answers: Sequence[Answers]) -> list[Rates]:
    """Of every system with answers; of the run's report alone where its answers are gone."""
    found = [_of(one) for one in answers[:SLOTS] if one.rows]
    report = record.files.get("report")
    return found or ([_told(record.name, report)] if report else [])


def accuracy_chart(found: Sequence[Rates]) -> Accuracy | None:
    """The chart and the table; None where nothing was scored."""
    if not found:
        return None
    names = dict.fromkeys(name for one in found for name in one.fields if name != ALL)
    fields = [*names, ALL]
    drawn = [
        (f, [(one.name, i, one.fields[f]) for i, one in enumerate(found) if f in one.fields])
        for f in fields
    ]
    rows = [
        (f, *(one.fields[f].percent() if f in one.fields else "—" for one in found)) for f in fields
    ]
    rows.append((MEAN, *(f"{100 * one.mean:.1f}" for one in found)))
    rows.append(("documents", *(str(one.n) for one in found)))
    head = ("field", *(one.name for one in found))
    note = (
        "Percent right, with 95% intervals. “all fields” is the share of documents with every field"
        " right."
    )
    legend = tuple((one.name, swatch(i)) for i, one in enumerate(found))
    return Accuracy(
        draw_intervals("Share of documents right, by field", drawn),
        legend,
        Table("", head, tuple(rows), note),
    )


def all_differences(
    record: Record, answers: Sequence[Answers], control: Answers | None
) -> tuple[list[Difference], list[str]]:
    """The run's own answers against each of the others, and why some cannot be compared.

    Against its control the run has compared itself.
    """
    told = record.files.get("comparison")
    found = [difference_table(told)] if told and _is_comparison(told) else []
    refused = []
    for other in answers[1:SLOTS]:
        if found and other is control:
            continue
        try:
            pair = (_greedy(one) for one in (answers[0], other))
            made = compare.compare_answers(*pair, common=True, names=(answers[0].name, other.name))
            found.append(difference_table(made.as_dict()))
        except DataError as error:
            refused.append(f"{answers[0].name} and {other.name} are not compared: {error.what}")
    return found, refused


def difference_table(told: Object) -> Difference:
    """A comparison as `Comparison.as_dict` or comparison.json has it."""
    a, b = map(str, told["names"])
    rows = {**told["fields"], ALL: told["all_fields"], MEAN: told["mean"]}
    head = ("", a, b, f"{a} − {b}, points", f"only {a}", f"only {b}", "p")
    cells = tuple(_row(name, one) for name, one in rows.items())
    corrected = ", those of the fields corrected (Holm)" if len(told["fields"]) > 1 else ""
    left = sum(told.get("left_out") or ())
    note = (
        f"{told['n']} documents{f', {left} left out that only one answered' if left else ''}."
        f" Percent right and differences with 95% intervals; exact p{corrected}."
    )
    verdicts = tuple(
        f"{name}: {one['verdict']}." for name, one in rows.items() if one.get("verdict")
    )
    return Difference(
        Table(f"{a} against {b}", head, cells, note),
        f"{a} against {b}, {ALL}: {rows[ALL]['verdict']}.",
        verdicts,
    )


def _row(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    a, b, apart = (Interval(**one[side]) for side in ("a", "b", "difference"))
    p = one["p"] if name in (ALL, MEAN) else one["p_holm"]
    only = (str(one["only_a"]), str(one["only_b"]))
    return (
        name,
        a.percent(),
        b.percent(),
        apart.points(),
        *only,
        "< 0.001" if p < 0.001 else f"{p:.3f}",
    )


def _greedy(answers: Answers) -> list[Prediction]:
    """Each document's first sample as if it were the only one."""
    return [replace(row, sample=None) for row in answers.by_id.values()]


def _of(answers: Answers) -> Rates:
    report = Report.of(list(answers.by_id.values()))
    return Rates(answers.name, report.n, report.mean, {**report.fields, ALL: report.all_fields})


def _told(name: str, report: Object) -> Rates:
    fields = {field: Interval(**one) for field, one in mapping(report, "fields").items()}
    return Rates(
        name,
        int(report["n"]),
        float(report["mean"]),
        {**fields, ALL: Interval(**report["all_fields"])},
    )


def _is_comparison(told: Object) -> bool:
    return {"names", "n", "fields", "all_fields", "mean"} <= told.keys()
