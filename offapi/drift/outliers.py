"""The rows that stand out: the few lowest and highest of each signal, with the reason."""

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
STRETCH = 40  # characters of a new stretch of text
UNITS = {CHARACTERS: "characters", LINES: "lines", ANSWER: "characters"}

Tops = Mapping[str, tuple["OutlierRow", ...]]


@dataclass(frozen=True)
class OutlierRow:
    """A row that stands out. `value` is a score, a share, or a length in its unit."""

    id: str
    value: float
    reason: str


def list_key(name: str, side: int) -> str:
    """Return the key of a signal's lowest (-1) or highest (1) rows."""
    return f"{'high' if side > 0 else 'low'} {name}"


def merged(
    tops: Tops,
    batch: Batch,
    raw: NDArray[np.float64],
    watching: Sequence[Signal],
    rulers: Mapping[str, Ruler],
    known: Known,
) -> Tops:
    """Return `tops` merged with the rows of a batch, whose values are `raw` (N, W).

    Of equal rows, the earlier one stays.
    """
    lists = dict(tops)
    score = raw[:, [signal.kind == "check" for signal in watching]].mean(axis=1)
    lists[WORST] = _few(lists.get(WORST, ()), score, batch.traces, -1, 1.0, _worst)
    for i, signal in enumerate(watching):
        limit = None
        if signal.kind == "check":
            limit = 1.0
        elif signal.kind == "field" or signal.name == NOVEL:
            limit = 0.0
        reason = _reason_of(signal, rulers, known)
        for side in (-1, 1):
            if signal.kind in ("check", "field") and side != (-1 if signal.kind == "check" else 1):
                continue
            key = list_key(signal.name, side)
            before = lists.get(key, ())
            lists[key] = _few(before, raw[:, i], batch.traces, side, limit, reason)
    return lists


def _few(
    before: tuple[OutlierRow, ...],
    values: NDArray[np.float64],
    traces: Sequence[Trace],
    side: int,
    limit: float | None,
    reason: Callable[[Trace, float], str],
) -> tuple[OutlierRow, ...]:
    """Return the few that stand out among those `before` and the new ones.

    A value equal to `limit` never stands out.
    """
    bar = side * before[-1].value if len(before) == SHOWN else -np.inf
    if limit is not None:
        bar = max(bar, side * limit)
    better = np.flatnonzero(side * values > bar)
    first = better[np.argsort(-side * values[better], kind="stable")[:SHOWN]]
    new = [(traces[i], float(values[i])) for i in first.tolist()]
    rows = [
        OutlierRow(_short(trace.id), value, _short(reason(trace, value))) for trace, value in new
    ]
    return tuple(sorted([*before, *rows], key=lambda row: -side * row.value)[:SHOWN])


def _reason_of(
    signal: Signal, rulers: Mapping[str, Ruler], known: Known
) -> Callable[[Trace, float], str]:
    """Return the function that explains why a row stands out in `signal`."""
    if signal.kind == "check":
        return lambda trace, value: _verdict(trace, signal.of)
    if signal.kind == "field":
        return lambda trace, value: f"{signal.of} is missing"
    if signal.name in LENGTHS:
        unit, median = UNITS[signal.name], rulers[signal.name].median()
        return lambda trace, value: f"{value:,.0f} {unit}; the reference's median is {median:,.0f}"
    if signal.name == NOVEL:
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


def _verdict(trace: Trace, check: str) -> str:
    checks = (trace.grade or {}).get("checks")
    return str(checks[check]["reason"]) if checks else "there is no answer"


def _short(text: str) -> str:
    return shorten(" ".join(terminal_safe(text).split()), LONGEST)
