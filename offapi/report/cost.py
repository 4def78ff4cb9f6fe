"""The estimate of `offapi cost --json`, as tables and a break-even plot.

Anything in a form that is not understood is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from offapi.report.render.axes import brief
from offapi.report.render.charts import Chart, Series
from offapi.report.render.table import Table, text
from offapi.report.run_files import Object, mapping, number

API, NEVER = "API", "never"
DRAWN = (
    "The line of your own model joins two points: the first month's cost, and the month's"
    " break-even with the API. Growth counts in the verdict, but not here."
)
MOST = 12  # inputs in the sensitivity table


@dataclass(frozen=True)
class CostSection:
    """Verdict, tables and plots."""

    verdict: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]


def read_cost(estimate: Object) -> CostSection | None:
    """Return the section; None if there is nothing to show, or nothing that is understood."""
    cases = {
        name: case for name, case in mapping(estimate, "cases").items() if isinstance(case, dict)
    }
    if not cases:
        return None
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        tables = [_table(estimate, cases), _weights(estimate)]
        chart = _plot(estimate, cases)
        verdict = f"{text(estimate.get('verdict', ''))}".strip()
        dated = (
            f" Prices as of {text(estimate['prices_dated'])}."
            if estimate.get("prices_dated")
            else ""
        )
        headline = f"{verdict[:1].upper()}{verdict[1:]}.{dated}" if verdict else dated.strip()
        return CostSection(
            headline, tuple(one for one in tables if one.rows), (chart,) if chart.series else ()
        )
    return None


def _table(estimate: Object, cases: Mapping[str, Object]) -> Table:
    money, api = _currency(estimate), mapping(estimate, "api")
    columns = [*cases.values(), api]
    parts = dict.fromkeys(part for case in cases.values() for part in mapping(case, "parts"))
    rows: list[tuple[str, ...]] = []
    for part in parts:
        amounts = [_amount(mapping(case, "parts").get(part), money) for case in cases.values()]
        rows.append((text(part), *amounts, ""))
    for name, key in (
        ("the first month", "monthly"),
        ("per request", "per_request"),
        ("over the task's life", "total"),
    ):
        rows.append((name, *(_spread(column.get(key), money) for column in columns)))
    for name, key in (
        ("break-even of one month, requests", "break_even_requests"),
        ("break-even over the task's life, requests in month 1", "break_even_start"),
        ("break-even over the task's life, month", "break_even_month"),
    ):
        rows.append((name, *(_spread(case.get(key), "") for case in cases.values()), ""))
    rows.append(("verdict", *(text(case.get("verdict")) for case in cases.values()), ""))
    note = "Likely figures, with the 5th to 95th percentile in brackets."
    return Table("What it costs", ("", *map(text, cases), API), tuple(rows), note)


def _weights(estimate: Object) -> Table:
    """Return the inputs that the answer depends on, the most important first."""
    money, swings = _currency(estimate), mapping(estimate, "sensitivity").get("inputs") or ()
    rows = tuple(
        (
            text(swing.get("key")),
            _amount(swing.get("at_low"), money),
            _amount(swing.get("at_high"), money),
            "decides" if swing.get("decides") else "",
        )
        for swing in swings[:MOST]
    )
    return Table(
        "What matters most", ("input", "saves a month, if low", "saves a month, if high", ""), rows
    )


def _plot(estimate: Object, cases: Mapping[str, Object]) -> Chart:
    """Plot the cost of a month over requests: the API's line, and each case's known points."""
    price = number(mapping(mapping(estimate, "api"), "per_request").get("likely"))
    volume = number(mapping(mapping(estimate, "inputs"), "requests").get("likely"))
    lines = []
    if price is not None and volume is not None:
        for slot, (name, case) in enumerate(cases.items(), start=1):
            even = number(mapping(case, "break_even_requests").get("likely"))
            month = number(mapping(case, "monthly").get("likely"))
            known = {
                x: y for x, y in ((volume, month), (even, even and even * price)) if x is not None
            }
            lines.append(Series(text(name), tuple(sorted(known.items())), slot, marks=True))
        furthest = 1.1 * max([volume, *(x for line in lines for x, _ in line.points)])
        lines.insert(0, Series(API, ((0.0, 0.0), (furthest, furthest * price))))
    return Chart(
        "Where a month breaks even",
        tuple(lines),
        f"{_currency(estimate)} a month",
        "requests a month",
        note=DRAWN,
    )


def _currency(estimate: Object) -> str:
    return text(estimate.get("currency", ""))


def _spread(value: Any, sign: str) -> str:
    if not isinstance(value, dict):
        return "—"
    ends = " to ".join(_amount(value.get(end), sign) for end in ("low", "high"))
    return f"{_amount(value.get('likely'), sign)} [{ends}]"


def _amount(value: Any, sign: str) -> str:
    known = number(value)
    return NEVER if known is None else f"{'-' if known < 0 else ''}{sign}{brief(abs(known))}"
