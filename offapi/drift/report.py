"""Fresh, watch or retrain: what the e-values say, how far
each thing moved, which rows drove it, what to do next.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from math import exp, log, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offapi.drift.monitor import DriftMonitor
from offapi.drift.outliers import WORST, OutlierRow, list_key
from offapi.drift.sequential_test import VALUES
from offapi.drift.signals import NOVEL, Kind
from offapi.drift.state import State
from offapi.stats.interval import Interval, wilson

Verdict = Literal["fresh", "watch", "retrain"]
FEW = 200  # reference rows, below which little can be shown
LARGEST = 1e12  # e-values are not told beyond it


@dataclass(frozen=True, kw_only=True)
class SignalFinding:
    """One watched thing. Means lie in [0, 1]; a length's
    is its mean place among the reference's lengths.
    """

    name: str
    kind: Kind
    reference: float
    fresh: float
    lately: float | None  # of about the last few hundred rows
    difference: Interval  # fresh less reference
    e: float
    highest_e: float
    moved: bool  # its highest e reached the alarm
    rows: tuple[OutlierRow, ...]  # that stand out the way it moved, where it moved

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        lately = "" if self.lately is None else f"{100 * self.lately:.1f}"
        means = (f"{100 * self.reference:.1f}", f"{100 * self.fresh:.1f}", lately)
        return (
            self.name,
            *means,
            self.difference.points(),
            f"{self.highest_e:,.2g}",
            "moved" if self.moved else "",
        )


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """The verdict and all it rests on."""

    verdict: Verdict
    rule: str
    reference_rows: int
    fresh_rows: int
    failed: int
    watched: tuple[SignalFinding, ...]
    alarm: float  # the e-value at which a thing counts as moved
    warning: float  # the e-value at which a check alone is watched
    worst: tuple[OutlierRow, ...]
    most_novel: tuple[OutlierRow, ...]
    right: Mapping[
        str, Interval | None
    ]  # rows right in all fields where gold is known; no part of the verdict

    def as_dict(self) -> dict[str, Any]:
        """The object for --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Verdict, rule and notes, in words."""
        moved = [one for one in self.watched if one.moved]
        told = [f"{self.verdict.upper()}: {self._why(moved)}", f"Rule: {self.rule}"]
        if self.reference_rows < FEW:
            told.append(
                f"A reference of {self.reference_rows:,} rows can show little: give it {FEW} or"
                " more."
            )
        known = [
            f"{name} {found.percent()}%" for name, found in self.right.items() if found is not None
        ]
        if known:
            told.append(
                f"Right in every field where gold is known: {', '.join(known)}. No part of the"
                " verdict."
            )
        return told

    def _why(self, moved: Sequence[SignalFinding]) -> str:
        if moved:
            return "; ".join(f"{one.name} {one.difference.points()} points" for one in moved) + "."
        if self.verdict == "watch":
            low = max(
                (one for one in self.watched if one.kind == "check"), key=lambda one: one.highest_e
            )
            return f"{low.name} may have fallen: {low.difference.points()} points."
        return f"nothing moved as far as {self.fresh_rows:,} rows can tell."


def drift_report(watch: DriftMonitor, state: State, rate: float) -> DriftReport:
    """What `state`, of one row or more, says, when at most
    `rate` of all watches without drift shall raise an alarm.
    """
    alarm, warning = len(watch.watching) / rate, 1.0 / rate
    findings = _findings(watch, state, log(alarm))
    checks = [one for one in findings if one.kind == "check"]
    verdict: Verdict = "fresh"
    if any(one.moved for one in findings) or any(one.highest_e >= warning for one in checks):
        verdict = "watch"
    if any(one.moved for one in checks):
        verdict = "retrain"
    return DriftReport(
        verdict=verdict,
        rule=_rule(len(findings), alarm, warning, rate),
        reference_rows=watch.reference.rows,
        fresh_rows=state.rows,
        failed=state.failed,
        watched=findings,
        alarm=alarm,
        warning=warning,
        worst=state.tops.get(WORST, ()),
        most_novel=state.tops.get(list_key(NOVEL, 1), ()),
        right={"reference": _right(watch.reference.right), "fresh": _right(state.right)},
    )


def next_commands(verdict: Verdict, task_file: Path, fresh: Path) -> list[str]:
    """What to run next."""
    task, traces = (shlex.quote(str(path.absolute())) for path in (task_file, fresh))
    if verdict == "fresh":
        return []
    if verdict == "watch":
        return [f"offapi grade --task {task} --traces {traces} --review 30"]
    recipe, more, first = (
        task_file.parent / "filtered_sft.toml",
        f"--set name=retrain-{date.today()}",
        [],
    )
    if not recipe.is_file():
        recipe, first = Path("retrain/filtered_sft.toml"), ["offapi init retrain"]
        more += f" --set task={task} --set val=LABELLED.jsonl"
    return [*first, f"offapi train {shlex.quote(str(recipe))} --set traces={traces} {more}"]


def _findings(watch: DriftMonitor, state: State, alarm: float) -> tuple[SignalFinding, ...]:
    found, logs, lately = [], watch.log_e(state), watch.lately(state)
    for i, one in enumerate(watch.watching):
        before, now = watch.reference.counts[i], state.counts[i]
        difference = _difference(now, before)
        moved, side = bool(state.peak[i] >= alarm), 1 if difference.mean > 0 else -1
        finding = SignalFinding(
            name=one.name,
            kind=one.kind,
            reference=_mean(before),
            fresh=_mean(now),
            lately=None if np.isnan(lately[i]) else float(lately[i]),
            difference=difference,
            e=_e_value(logs[i]),
            highest_e=_e_value(state.peak[i]),
            moved=moved,
            rows=state.tops.get(list_key(one.name, side), ()) if moved else (),
        )
        found.append(finding)
    return tuple(found)


def _e_value(log_e: float) -> float:
    return min(exp(min(log_e, 700.0)), LARGEST)


def _rule(watched: int, alarm: float, warning: float, rate: float) -> str:
    return (
        f"retrain when the highest e of a check reached {alarm:,.0f} ({watched} things watched /"
        f" {rate:g}); watch when that of anything else did, or that of a check {warning:,.0f}; else"
        f" fresh. Where nothing drifts and rows are independent, at most {rate:.2%} of watches ever"
        f" see an e of {alarm:,.0f}, however often they look."
    )


def _right(counted: tuple[int, int]) -> Interval | None:
    return wilson(*counted) if counted[1] else None


def _mean(counts: NDArray[np.int64]) -> float:
    return float(counts @ VALUES / counts.sum()) if counts.any() else 0.5


def _difference(fresh: NDArray[np.int64], reference: NDArray[np.int64]) -> Interval:
    """Newcombe's interval (Statistics in Medicine 17,
    1998, method 10) from the two means' score intervals.
    """
    a, b = _score_interval(fresh), _score_interval(reference)
    difference = a.mean - b.mean
    low = difference - sqrt((a.mean - a.low) ** 2 + (b.high - b.mean) ** 2)
    high = difference + sqrt((a.high - a.mean) ** 2 + (b.mean - b.low) ** 2)
    return Interval(difference, max(low, -1.0), min(high, 1.0))


def _score_interval(counts: NDArray[np.int64]) -> Interval:
    """Wilson's, for as many coins as vary like the values that were counted."""
    n, mean = int(counts.sum()), _mean(counts)
    if not n:
        return Interval(mean, 0.0, 1.0)
    variance = float(counts @ (VALUES - mean) ** 2) / n
    coins = n * mean * (1 - mean) / variance if variance > 0 else float(n)
    return wilson(mean * coins, coins)
