"""What `offapi cost --json` reckoned, as tables and a break-even plot.

A shape that is not known is left out.
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
    "Each own line joins what was reckoned of one month: its cost at the first month's requests,"
    " and the break-even with the API. Growth counts in the verdict, not here."
)
MOST = 12  # inputs of the sensitivity


@dataclass(frozen=True)
class CostSection:
    """Verdict, tables and plots."""

    verdict: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]


def read_cost(told: Object) -> CostSection | None:
    """None where there is nothing to show, or nothing that is understood."""
    cases = {name: case for name, case in mapping(told, "cases").items() if isinstance(case, dict)}
    if not cases:
        return None
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        tables = [_table(told, cases), _weights(told)]
        chart = _plot(told, cases)
        verdict = f"{text(told.get('verdict', ''))}".strip()
        dated = f" Prices as of {text(told['prices_dated'])}." if told.get("prices_dated") else ""
        headline = f"{verdict[:1].upper()}{verdict[1:]}.{dated}" if verdict else dated.strip()
        return CostSection(
            headline, tuple(one for one in tables if one.rows), (chart,) if chart.series else ()
        )
    return None


def _table(told: Object, cases: Mapping[str, Object]) -> Table:
    money, api = _currency(told), mapping(told, "api")
    columns = [*cases.values(), api]
    parts = dict.fromkeys(part for case in cases.values() for part in mapping(case, "parts"))
    rows = [
        (
            text(part),
            *(_amount(mapping(case, "parts").get(part), money) for case in cases.values()),
            "",
        )
        for part in parts
    ]
    for name, key in (
        ("the first month", "monthly"),
        ("a request in it", "per_request"),
        ("while it lives", "total"),
    ):
        rows.append((name, *(_spread(one.get(key), money) for one in columns)))
    for name, key in (
        ("break-even of one month, requests", "break_even_requests"),
        ("break-even while it lives, requests in the first month", "break_even_start"),
        ("break-even while it lives, month", "break_even_month"),
    ):
        rows.append((name, *(_spread(case.get(key), "") for case in cases.values()), ""))
    rows.append(("verdict", *(text(case.get("verdict")) for case in cases.values()), ""))
    note = "Likely figures, with their 5th to 95th percentile in brackets."
    return Table("What it costs", ("", *map(text, cases), API), tuple(rows), note)


def _weights(told: Object) -> Table:
    """What the answer hangs on, the heaviest first."""
    money, found = _currency(told), mapping(told, "sensitivity").get("inputs") or ()
    rows = tuple(
        (
            text(one.get("key")),
            _amount(one.get("at_low"), money),
            _amount(one.get("at_high"), money),
            "decides" if one.get("decides") else "",
        )
        for one in found[:MOST]
    )
    return Table(
        "What weighs most", ("input", "saved a month at its low end", "at its high end", ""), rows
    )


def _plot(told: Object, cases: Mapping[str, Object]) -> Chart:
    """Cost of a month over requests: the API's line,
    and for each case the points that are known.
    """
    price = number(mapping(mapping(told, "api"), "per_request").get("likely"))
    volume = number(mapping(mapping(told, "inputs"), "requests").get("likely"))
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
        f"{_currency(told)} a month",
        "requests a month",
        note=DRAWN,
    )


def _currency(told: Object) -> str:
    return text(told.get("currency", ""))


def _spread(value: Any, sign: str) -> str:
    if not isinstance(value, dict):
        return "—"
    ends = " to ".join(_amount(value.get(end), sign) for end in ("low", "high"))
    return f"{_amount(value.get('likely'), sign)} [{ends}]"


def _amount(value: Any, sign: str) -> str:
    known = number(value)
    return NEVER if known is None else f"{'-' if known < 0 else ''}{sign}{brief(abs(known))}"
