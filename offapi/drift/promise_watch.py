"""Is a run's promise kept? Reviewed answers, as they come, against the errors it allows.

Of each field's accepted answers, and of accepted documents, at most a share may be wrong. An
e-process bets that more are (`sequential_test`), so the file may be tested after every new row:
a promise that is kept is ever withdrawn with probability `delta` at most, over all fields. All rows
are tested from the first on, in their order, so no state is kept. Left out: answers that were not
accepted, of which nothing was promised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from offapi.checks.gold import compare_fields
from offapi.confidence import promise
from offapi.confidence.promise import WHOLE, Promise
from offapi.drift import sequential_test
from offapi.drift.report import LARGEST
from offapi.drift.sequential_test import BLOCK, Bets
from offapi.errors import DataError, RunError
from offapi.files import jsonl
from offapi.stats.interval import Interval, wilson
from offapi.task import Task, load_task
from offapi.text.display import plural, share
from offapi.training.run import Run

REVIEW = 'Add the right answer to each row of `offapi predict` as "gold": {...}.'


@dataclass(frozen=True)
class PromiseFinding:
    """Reviewed answers of one field that were accepted, or documents whose fields all were."""

    name: str
    accepted: int
    wrong: int
    highest_e: float
    broken: bool  # it reached the alarm

    def cells(self) -> tuple[str, ...]:
        """Return a row of the table."""
        evidence = f"{self.highest_e:,.2g}" if self.highest_e < LARGEST else "overwhelming"
        rate = self.rate
        shown = "—" if rate is None else rate.percent()
        state = "broken" if self.broken else ""
        return (self.name, f"{self.accepted:,}", f"{self.wrong:,}", shown, evidence, state)

    @property
    def rate(self) -> Interval | None:
        """The share that is wrong."""
        return wilson(self.wrong, self.accepted) if self.accepted else None


@dataclass(frozen=True)
class PromiseReport:
    """Whether the promise still holds, and the promise, which may just have been withdrawn."""

    promise: Promise
    reviewed: int
    findings: tuple[PromiseFinding, ...]
    alarm: float

    @property
    def kept(self) -> bool:
        """Whether the promise is not withdrawn."""
        return self.promise.withdrawn is None

    def as_dict(self) -> dict[str, Any]:
        """Return the object for --json."""
        gone = self.promise.withdrawn
        return {
            "verdict": "kept" if self.kept else "withdrawn",
            "withdrawn": asdict(gone) if gone else None,
            "promised": self.promise.error,
            "reviewed": self.reviewed,
            "alarm": self.alarm,
            "accepted": [asdict(finding) for finding in self.findings],
        }

    def headline(self) -> str:
        """Return the verdict in a sentence."""
        gone = self.promise.withdrawn
        if gone is not None:
            return f"WITHDRAWN ({gone.when}): {gone.why}. `offapi predict` accepts nothing now."
        return f"KEPT: {plural(self.reviewed, 'reviewed answer')} do not contradict the promise."


def watch_promise(run: Run, reviewed: Path) -> PromiseReport:
    """Test the run's promise on reviewed answers; withdraw it where it is broken.

    Raise RunError for a run that is not calibrated, DataError for a row that is not a reviewed
    answer, and what reading a task raises.
    """
    path = run.path / promise.FILE
    if not path.is_file():
        step = f"Calibrate it first: offapi calibrate {run.path} --data REVIEWED.jsonl."
        raise RunError("the run is not calibrated.", where=str(run.path), next_step=step)
    given, task = promise.read(path), load_task(_task_file(run))
    names = [*given.fields, WHOLE]
    values: dict[str, list[bool]] = {name: [] for name in names}
    rows = 0
    for right in _reviewed(reviewed, task, given):
        rows += 1
        for name, ok in right.items():
            values[name].append(ok)
    alarm = len(names) / given.delta
    findings = tuple(_finding(name, values[name], given.error, alarm) for name in names)
    broken = [finding for finding in findings if finding.broken]
    if broken:
        given = promise.withdraw(path, _why(broken, given.error))
    return PromiseReport(given, rows, findings, alarm)


def highest_e(right: Sequence[bool], error: float) -> float:
    """Return the log of the highest e-value ever against "at most `error` of these are wrong".

    It is computed after every block of rows, and after the last row.
    """
    test = sequential_test.against_mean(np.array([1.0 - error]))
    bets, peak = Bets.start(test), 0.0
    values = np.array(right, np.float64)[:, None]
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        peak = max(peak, float(sequential_test.log_e(test, bets, block)[0]))
        if len(block) == BLOCK:
            bets = sequential_test.after(test, bets, block)
    return peak


def _finding(name: str, right: Sequence[bool], error: float, alarm: float) -> PromiseFinding:
    peak = highest_e(right, error)
    evidence = min(exp(min(peak, 700.0)), LARGEST)
    return PromiseFinding(name, len(right), right.count(False), evidence, peak >= log(alarm))


def _reviewed(path: Path, task: Task, given: Promise) -> Iterator[dict[str, bool]]:
    """Yield of each reviewed document which accepted fields are right; the first row of an id."""
    seen = set()
    for row in jsonl.read(path):
        id, gold = row.required("id", str), row.value.get("gold")
        if id in seen or gold is None:
            continue
        seen.add(id)
        if not isinstance(gold, Mapping):
            raise row.error("must be an object of fields.", "gold", REVIEW)
        task.check_gold(gold, row=id)
        yield _accepted(row, compare_fields(row.optional("answer", dict), gold, task.match), given)
    if not seen:
        raise DataError.at("no row has gold.", path=path, next_step=REVIEW)


def _accepted(row: jsonl.JsonRow, right: Mapping[str, bool], given: Promise) -> dict[str, bool]:
    """Return which of a row's accepted fields are right, and whether all are."""
    fields: Mapping[str, Any] = row.required("fields", dict)
    found = {}
    for name in given.fields:
        answer = fields.get(name)
        if not isinstance(answer, Mapping) or "accepted" not in answer:
            raise row.error("not an answer of `offapi predict`.", f"fields.{name}", REVIEW)
        if answer["accepted"] is True:
            found[name] = right[name]
    if row.value.get("accepted") is True:
        found[WHOLE] = all(right[name] for name in given.fields)
    return found


def _task_file(run: Run) -> Path:
    named = run.manifest.get("config", {}).get("task")
    if not isinstance(named, str):
        step = "Name a run that a recipe trained."
        raise RunError("the run names no task.", where=str(run.path), next_step=step)
    return Path(named)


def _why(broken: Sequence[PromiseFinding], error: float) -> str:
    """Say which answers were wrong too often."""
    counts = []
    for each in broken:
        count = share(each.wrong, each.accepted, "accepted answer", ("is", "are"))
        counts.append(f"{each.name}: {count} wrong")
    return f"{'; '.join(counts)}; {error:.1%} was promised"
