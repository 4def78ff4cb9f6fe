"""Accuracy: each system's rates by field, and its difference to the run's own, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from offapi.errors import DataError
from offapi.evaluation import compare
from offapi.evaluation.accuracy import Prediction, Report
from offapi.evaluation.field_details import INSIDE_HEAD, NULL_HEAD, FieldDetails
from offapi.report.render.charts import SLOTS, draw_intervals, swatch
from offapi.report.render.table import Table
from offapi.report.run_files import Answers, Object, Record, mapping, number
from offapi.stats.interval import Interval
from offapi.text.display import plural

ALL, MEAN = compare.ALL, compare.MEAN
COSTS = (
    ("prompt_tokens", "prompt tokens per document"),
    ("seconds", "seconds per document"),
)


@dataclass(frozen=True)
class Rates:
    """A system's accuracy: by field, with `all fields` last, and the mean of the fields."""

    name: str
    n: int
    mean: float
    fields: Mapping[str, Interval]
    cost: Object = field(default_factory=dict)  # per document
    details: FieldDetails | None = None


@dataclass(frozen=True)
class Difference:
    """Two systems on the same documents, as `offapi eval --against` compares them."""

    table: Table
    headline: str
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class Accuracy:
    """The charts and the table of all systems."""

    svgs: tuple[Markup, ...]  # with many systems two, side by side, each with half of the fields
    legend: tuple[tuple[str, Markup], ...]
    table: Table
    details: tuple[Table, ...]  # inside lists and objects, and nulls apart


def accuracy_rates(record: Record, answers: Sequence[Answers]) -> list[Rates]:
    """Return the rates of every system with answers; without any, those of the run's report."""
    rates = [_of_answers(system) for system in answers[:SLOTS] if system.rows]
    report = record.files.get("report")
    if not rates and report:
        rates = [_of_report(record.name, report)]
    return rates


def accuracy_chart(systems: Sequence[Rates]) -> Accuracy | None:
    """Return the chart and the table; None if nothing was scored."""
    if not systems:
        return None
    names = dict.fromkeys(name for system in systems for name in system.fields if name != ALL)
    bars, rows = [], []
    for name in (*names, ALL):
        cells = [s.fields[name].percent() if name in s.fields else "—" for s in systems]
        scored = [(i, s) for i, s in enumerate(systems) if name in s.fields]
        bars.append((name, [(s.name, i, s.fields[name]) for i, s in scored]))
        rows.append((name, *cells))
    rows.append((MEAN, *(f"{100 * system.mean:.1f}" for system in systems)))
    rows.append(("documents", *(str(system.n) for system in systems)))
    costs = [_costs(systems, key, title) for key, title in COSTS]
    rows += [row for row in costs if set(row[1:]) != {"—"}]
    head = ("field", *(system.name for system in systems))
    note = (
        "Percent right, with 95% intervals. “all fields” is the share of documents with all fields"
        " right."
    )
    legend = tuple((system.name, swatch(i)) for i, system in enumerate(systems))
    half = -(-len(bars) // 2) if len(systems) > 1 and len(bars) > 1 else len(bars)
    parts = [bars[i : i + half] for i in range(0, len(bars), half)]
    return Accuracy(
        tuple(draw_intervals("Share of documents right, by field", part) for part in parts),
        legend,
        Table("", head, tuple(rows), note),
        tuple(_detail_tables(systems)),
    )


def _detail_tables(systems: Sequence[Rates]) -> Iterator[Table]:
    """Yield what is right inside lists and objects, then each system's nulls where it has some."""
    known = [(system.name, system.details) for system in systems if system.details]
    inside = [dict(details.inside_rows()) for _, details in known]
    names = dict.fromkeys(name for rows in inside for name in rows)
    if names:
        cells = tuple(_across(name, inside) for name in names)
        head = (INSIDE_HEAD[0], *(name for name, _ in known))
        yield Table("", head, cells, "“[]” is all items of a list in all documents.")
    note = "Invented: a value where gold is null. Missed: null where gold has a value."
    for name, details in known:
        if details.has_nulls:
            yield Table(f"Nulls: {name}", NULL_HEAD, tuple(details.null_rows()), note)


def _across(name: str, systems: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    return (name, *(rows.get(name, "—") for rows in systems))


def _costs(systems: Sequence[Rates], key: str, title: str) -> tuple[str, ...]:
    costs = [number(system.cost.get(key)) for system in systems]
    return (title, *("—" if cost is None else f"{cost:g}" for cost in costs))


def all_differences(
    record: Record, answers: Sequence[Answers], control: Answers | None
) -> tuple[list[Difference], list[str]]:
    """Compare the run's own answers with each of the others; return also why some cannot be.

    For its control, the run's own comparison is used.
    """
    stored = record.files.get("comparison")
    differences = [difference_table(stored)] if stored and _is_comparison(stored) else []
    refused = []
    for other in answers[1:SLOTS]:
        if differences and other is control:
            continue
        names = (answers[0].name, other.name)
        try:
            own, others = _first_samples(answers[0]), _first_samples(other)
            compared = compare.compare_answers(own, others, common=True, names=names)
            differences.append(difference_table(compared.as_dict()))
        except DataError as error:
            refused.append(f"{names[0]} and {names[1]} are not compared: {error.what}")
    return differences, refused


def difference_table(result: Object) -> Difference:
    """Return the table of a `Comparison.as_dict` or a comparison.json."""
    a, b = map(str, result["names"])
    rows = {**result["fields"], ALL: result["all_fields"], MEAN: result["mean"]}
    head = ("", a, b, f"{a} − {b}, points", f"only {a}", f"only {b}", "p")
    cells = tuple(_row(name, contrast) for name, contrast in rows.items())
    corrected = "; the p of fields are corrected (Holm)" if len(result["fields"]) > 1 else ""
    left = sum(result.get("left_out") or ())
    left_out = f"; {left} more, answered by only one, left out" if left else ""
    note = (
        f"{plural(result['n'], 'document')}{left_out}."
        f" Percent right and differences with 95% intervals; p values are exact{corrected}."
    )
    verdicts = tuple(
        f"{name}: {contrast['verdict']}."
        for name, contrast in rows.items()
        if contrast.get("verdict")
    )
    return Difference(
        Table(f"{a} against {b}", head, cells, note),
        f"{a} against {b}, {ALL}: {rows[ALL]['verdict']}.",
        verdicts,
    )


def _row(name: str, contrast: Mapping[str, Any]) -> tuple[str, ...]:
    a, b, difference = (Interval(**contrast[side]) for side in ("a", "b", "difference"))
    p = contrast["p"] if name in (ALL, MEAN) else contrast["p_holm"]
    only = (str(contrast["only_a"]), str(contrast["only_b"]))
    return (
        name,
        a.percent(),
        b.percent(),
        difference.points(),
        *only,
        "< 0.001" if p < 0.001 else f"{p:.3f}",
    )


def _first_samples(answers: Answers) -> list[Prediction]:
    """Return each document's first sample as if it were the only one."""
    return [replace(row, sample=None) for row in answers.by_id.values()]


def _of_answers(answers: Answers) -> Rates:
    report = Report.of(list(answers.by_id.values()))
    fields = {**report.fields, ALL: report.all_fields}
    return Rates(answers.name, report.n, report.mean, fields, answers.cost, report.details)


def _of_report(name: str, report: Object) -> Rates:
    fields = {field: Interval(**rate) for field, rate in mapping(report, "fields").items()}
    return Rates(
        name,
        int(report["n"]),
        float(report["mean"]),
        {**fields, ALL: Interval(**report["all_fields"])},
    )


def _is_comparison(result: Object) -> bool:
    return {"names", "n", "fields", "all_fields", "mean"} <= result.keys()
