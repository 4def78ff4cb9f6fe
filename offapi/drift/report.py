"""The report on drift: fresh, watch or retrain; how far each signal moved; what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
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
from offapi.drift.signals import LENGTHS, NOVEL, Kind
from offapi.drift.state import State
from offapi.stats.interval import Interval, wilson
from offapi.text.display import plural

Verdict = Literal["fresh", "watch", "retrain"]
FEW = 200  # reference rows below which little can be detected
LARGEST = 1e12  # e-values are not reported beyond it


@dataclass(frozen=True, kw_only=True)
class SignalFinding:
    """One signal. Means lie in [0, 1]; a length's is its mean place among reference lengths."""

    name: str
    kind: Kind
    reference: float
    fresh: float
    lately: float | None  # mean of about the last few hundred rows
    difference: Interval  # fresh minus reference
    e: float
    highest_e: float
    moved: bool  # its highest e reached the alarm
    rows: tuple[OutlierRow, ...]  # rows that stand out in the direction it moved
    medians: tuple[str, str] | None = None  # of a length: in the reference, and in fresh rows

    def cells(self) -> tuple[str, ...]:
        """Return a line of the table: means in percent, a length as its median."""
        end = ("moved" if self.moved else "",)
        evidence = f"{self.highest_e:,.2g}" if self.highest_e < LARGEST else "overwhelming"
        if self.medians:
            low, high = (100 * (0.5 + side) for side in (self.difference.low, self.difference.high))
            rank = f"longer than {100 * self.fresh:.0f}% [{low:.0f} to {high:.0f}]"
            return (f"median {self.name}", *self.medians, "", rank, evidence, *end)
        lately = "" if self.lately is None else _percent(self.lately)
        means = (_percent(self.reference), _percent(self.fresh), lately)
        return (self.name, *means, self.difference.points(), evidence, *end)

    def change(self) -> str:
        """Return how far it moved, in words."""
        if self.medians:
            before, now = self.medians
            if before == now:
                return f"{self.name} now beyond {100 * self.fresh:.0f}% of the reference's"
            return f"median {self.name} {before}, now {now}"
        way = "fell" if self.difference.mean < 0 else "rose"
        return f"{self.name} {way} from {_percent(self.reference)} to {_percent(self.fresh)}"


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """The verdict and everything it is based on."""

    verdict: Verdict
    rule: str
    reference_rows: int
    fresh_rows: int
    failed: int
    watched: tuple[SignalFinding, ...]
    alarm: float  # the e-value at which a signal counts as moved
    warning: float  # the e-value at which the verdict on a check is watch
    worst: tuple[OutlierRow, ...]
    most_novel: tuple[OutlierRow, ...]
    # rows right in all fields, among those with gold; not part of the verdict
    right: Mapping[str, Interval | None]

    def as_dict(self) -> dict[str, Any]:
        """Return the object for --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the rule and notes, in words."""
        lines = [f"Rule: {self.rule}"]
        if self.reference_rows < FEW:
            lines.append(
                f"The reference has only {plural(self.reference_rows, 'row')}, too few to detect"
                f" small changes. Use {FEW} or more."
            )
        known = [
            f"{name} {rate.percent()}%" for name, rate in self.right.items() if rate is not None
        ]
        if known:
            lines.append(
                f"Right in all fields, among rows with gold: {', '.join(known)}. This is not part"
                " of the verdict."
            )
        return lines

    def headline(self) -> str:
        """Return the verdict and the reason for it, in a sentence."""
        return f"{self.verdict.upper()}: {self._why()}"

    def _why(self) -> str:
        changes = "; ".join(signal.change() for signal in self.watched if signal.moved)
        if self.verdict == "retrain":
            return f"the answers have got worse. {changes}."
        if changes:
            return f"something has changed, but no check has surely fallen. {changes}."
        if self.verdict == "watch":
            checks = [signal for signal in self.watched if signal.kind == "check"]
            low = max(checks, key=lambda check: check.highest_e)
            return f"the answers may have got worse, or it is chance. {low.change()}."
        return f"no drift found in {plural(self.fresh_rows, 'row')}."


def drift_report(watch: DriftMonitor, state: State, rate: float) -> DriftReport:
    """Return the report on `state`, of one row or more.

    Without drift, the probability of ever raising an alarm is at most `rate`.
    """
    alarm, warning = len(watch.watching) / rate, 1.0 / rate
    findings = _findings(watch, state, log(alarm))
    checks = [finding for finding in findings if finding.kind == "check"]
    verdict: Verdict = "fresh"
    if any(finding.moved for finding in findings):
        verdict = "watch"
    if any(check.highest_e >= warning for check in checks):
        verdict = "watch"
    if any(check.moved for check in checks):
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
    """Return the commands to run next.

    After an alarm new labels come first: the served answers hold the mistakes that were found.
    """
    task, traces = (shlex.quote(str(path.absolute())) for path in (task_file, fresh))
    if verdict == "fresh":
        return []
    if verdict == "watch":
        return [f"offapi grade --task {task} --traces {traces} --review 30"]
    name = f"retrain-{date.today()}"
    recipe, more = task_file.parent / "distill.toml", ""
    commands = [f"offapi label --task {task} --data {traces} --teacher TEACHER --out {name}.jsonl"]
    if not recipe.is_file():
        recipe, more = Path("retrain/distill.toml"), f" --set task={task} --set val=LABELLED.jsonl"
        commands = ["offapi init retrain", *commands]
    data = f"--set data={traces} --set labels={name}.jsonl"
    return [
        *commands,
        f"offapi train {shlex.quote(str(recipe))} {data} --set name={name}{more}",
    ]


def _findings(watch: DriftMonitor, state: State, alarm: float) -> tuple[SignalFinding, ...]:
    findings, logs, lately = [], watch.log_e(state), watch.lately(state)
    for i, signal in enumerate(watch.watching):
        before, now = watch.reference.counts[i], state.counts[i]
        difference = _difference(now, before)
        moved, side = bool(state.peak[i] >= alarm), 1 if difference.mean > 0 else -1
        finding = SignalFinding(
            name=signal.name,
            kind=signal.kind,
            reference=_mean(before),
            fresh=_mean(now),
            lately=None if np.isnan(lately[i]) else float(lately[i]),
            difference=difference,
            e=_e_value(logs[i]),
            highest_e=_e_value(state.peak[i]),
            moved=moved,
            rows=state.tops.get(list_key(signal.name, side), ()) if moved else (),
            medians=_medians(watch, signal.name, before, now),
        )
        findings.append(finding)
    return tuple(findings)


def _medians(
    watch: DriftMonitor, name: str, before: NDArray[np.int64], now: NDArray[np.int64]
) -> tuple[str, str] | None:
    """Return a length's median in the reference and in fresh rows; None for other signals."""
    if name not in LENGTHS:
        return None
    ruler = watch.reference.rulers[name]
    places = [float(VALUES[np.searchsorted(np.cumsum(x), x.sum() / 2)]) for x in (before, now)]
    return ruler.length_at(places[0]), ruler.length_at(places[1])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _e_value(log_e: float) -> float:
    return min(exp(min(log_e, 700.0)), LARGEST)


def _rule(watched: int, alarm: float, warning: float, rate: float) -> str:
    return (
        f"retrain if the evidence for a fall of a check reaches {alarm:,.0f}"
        f" ({plural(watched, 'signal')} /"
        f" {rate:g}); watch if that for any other change does, or a check's reaches {warning:,.0f};"
        f" otherwise fresh. Without drift, and with independent rows, the probability that any"
        f" ever reaches {alarm:,.0f} is at most {rate:.2%}, however often you check."
    )


def _right(counted: tuple[int, int]) -> Interval | None:
    return wilson(*counted) if counted[1] else None


def _mean(counts: NDArray[np.int64]) -> float:
    return float(counts @ VALUES / counts.sum()) if counts.any() else 0.5


def _difference(fresh: NDArray[np.int64], reference: NDArray[np.int64]) -> Interval:
    """Return Newcombe's interval of a difference, from the two means' score intervals.

    Statistics in Medicine 17, 1998, method 10.
    """
    a, b = _score_interval(fresh), _score_interval(reference)
    difference = a.mean - b.mean
    low = difference - sqrt((a.mean - a.low) ** 2 + (b.high - b.mean) ** 2)
    high = difference + sqrt((a.high - a.mean) ** 2 + (b.mean - b.low) ** 2)
    return Interval(difference, max(low, -1.0), min(high, 1.0))


def _score_interval(counts: NDArray[np.int64]) -> Interval:
    """Return Wilson's interval, for as many coins as vary like the counted values."""
    n, mean = int(counts.sum()), _mean(counts)
    if not n:
        return Interval(mean, 0.0, 1.0)
    variance = float(counts @ (VALUES - mean) ** 2) / n
    coins = n * mean * (1 - mean) / variance if variance > 0 else float(n)
    return wilson(mean * coins, coins)
