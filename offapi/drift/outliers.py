"""The rows that stand out: the few lowest and highest
of each thing that is watched, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offapi.data.traces import Trace
from offapi.drift.quantile_scale import Ruler
from offapi.drift.rows import Batch
from offapi.drift.signals import ANSWER, CHARACTERS, LENGTHS, LINES, NOVEL, Signal
from offapi.grading.similarity.character_runs import Known
from offapi.text.display import shorten, terminal_safe

SHOWN = 3
WORST = "worst"
LONGEST = 160  # characters of a reason
STRETCH = 40  # of a new stretch
UNITS = {CHARACTERS: "characters", LINES: "lines", ANSWER: "characters"}

Tops = Mapping[str, tuple["OutlierRow", ...]]


@dataclass(frozen=True)
class OutlierRow:
    """A row that stands out. `value`: a score, a share, or a length in its unit."""

    id: str
    value: float
    reason: str


def list_key(name: str, side: int) -> str:
    """Under which the lowest (-1) or the highest (1) rows of a thing are kept."""
    return f"{'high' if side > 0 else 'low'} {name}"


def merged(
    tops: Tops,
    batch: Batch,
    raw: NDArray[np.float64],
    watching: Sequence[Signal],
    rulers: Mapping[str, Ruler],
    known: Known,
) -> Tops:
    """`tops` with the rows of a batch, whose values are `raw` (N, W).

    Of equal rows the earlier one stays.
    """
    found = dict(tops)
    score = raw[:, [one.kind == "check" for one in watching]].mean(axis=1)
    found[WORST] = _few(found.get(WORST, ()), score, batch.traces, -1, 1.0, _worst)
    for i, one in enumerate(watching):
        for side in (-1, 1):
            if one.kind in ("check", "field") and side != (-1 if one.kind == "check" else 1):
                continue
            limit = (
                1.0
                if one.kind == "check"
                else 0.0
                if one.kind == "field" or one.name == NOVEL
                else None
            )
            told = _teller(one, rulers, known)
            before = found.get(list_key(one.name, side), ())
            found[list_key(one.name, side)] = _few(
                before, raw[:, i], batch.traces, side, limit, told
            )
    return found


def _few(
    before: tuple[OutlierRow, ...],
    values: NDArray[np.float64],
    traces: Sequence[Trace],
    side: int,
    limit: float | None,
    told: Callable[[Trace, float], str],
) -> tuple[OutlierRow, ...]:
    """The few that stand out among those `before` and the
    new ones, none of which may have the value `limit`.
    """
    bar = side * before[-1].value if len(before) == SHOWN else -np.inf
    if limit is not None:
        bar = max(bar, side * limit)
    better = np.flatnonzero(side * values > bar)
    first = better[np.argsort(-side * values[better], kind="stable")[:SHOWN]]
    new = [(traces[i], float(values[i])) for i in first.tolist()]
    rows = [OutlierRow(_short(trace.id), value, _short(told(trace, value))) for trace, value in new]
    return tuple(sorted([*before, *rows], key=lambda row: -side * row.value)[:SHOWN])


def _teller(
    one: Signal, rulers: Mapping[str, Ruler], known: Known
) -> Callable[[Trace, float], str]:
    """What is said of a row that stands out in one thing."""
    if one.kind == "check":
        return lambda trace, value: _reason(trace, one.of)
    if one.kind == "field":
        return lambda trace, value: f"{one.of} is missing"
    if one.name in LENGTHS:
        unit, median = UNITS[one.name], rulers[one.name].median()
        return lambda trace, value: f"{value:,.0f} {unit}, the reference's median is {median:,.0f}"
    if one.name == NOVEL:
        return lambda trace, value: (
            f"{value:.0%} new, such as {known.longest_new(trace.document)[:STRETCH]!r}"
        )
    return lambda trace, value: f"{value:.0%}"


def _worst(trace: Trace, value: float) -> str:
    checks = (trace.grade or {}).get("checks")
    if not checks:
        return "there is no answer"
    return "; ".join(
        f"{name}: {part['reason']}" for name, part in checks.items() if part["score"] < 1.0
    )


def _reason(trace: Trace, check: str) -> str:
    checks = (trace.grade or {}).get("checks")
    return str(checks[check]["reason"]) if checks else "there is no answer"


def _short(text: str) -> str:
    return shorten(" ".join(terminal_safe(text).split()), LONGEST)
