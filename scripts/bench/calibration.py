"""Measure what `offapi calibrate` accepts: AUROC, and coverage at 1%, 5% and 10%, with a control.

The documents are split at random into those that calibrate and those that test, many times; the
answers are asked for once. Left out: asking; `offapi predict --signals` does.

    python scripts/bench/calibration.py task.py answers.jsonl val.jsonl held.jsonl --calibrate 100
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from offapi.calibrate.ask import compare, read_answers
from offapi.calibrate.fit import ReviewedAnswer, fit_promise
from offapi.cli.output import Output, options
from offapi.confidence import model
from offapi.confidence.promise import WHOLE
from offapi.confidence.quality import ERRORS
from offapi.data.rows import read_documents
from offapi.stats.interval import wilson
from offapi.stats.learn_then_test import accept_from
from offapi.task import load_task

FILE = click.Path(path_type=Path)
DELTA = 0.05
Numbers = NDArray[np.float64]


def chances(
    learned: Sequence[ReviewedAnswer], asked: Sequence[ReviewedAnswer], name: str, control: bool
) -> tuple[Numbers, Numbers]:
    """Return a field's probabilities: cross-fitted for `learned`, and for `asked`."""
    signals = [row.signals[name] for row in learned]
    right = [row.right[name] for row in learned]
    kept = model.by_logprob() if control else model.fit(signals, right)
    of_asked = np.array([kept.probability(row.signals[name]) for row in asked])
    if control:
        return np.array([kept.probability(each) for each in signals]), of_asked
    return model.cross_fit([row.id for row in learned], signals, right), of_asked


def accepted(
    learned: Sequence[ReviewedAnswer], asked: Sequence[ReviewedAnswer], level: float, control: bool
) -> dict[tuple[str, float], tuple[int, int]]:
    """Return how many of `asked` are accepted by field and error, and how many of those wrong."""
    names = list(learned[0].right)
    scored = {name: chances(learned, asked, name, control) for name in names}
    right = {name: np.array([row.right[name] for row in learned]) for name in names}
    truth = {name: np.array([row.right[name] for row in asked]) for name in names}
    whole = [np.prod([scored[name][side] for name in names], axis=0) for side in (0, 1)]
    scored[WHOLE] = (whole[0], whole[1])
    right[WHOLE] = np.all(list(right.values()), axis=0)
    truth[WHOLE] = np.all(list(truth.values()), axis=0)
    found = {}
    for name, (known, new) in scored.items():
        for error in ERRORS:
            tested = accept_from(known, right[name], error, level)
            taken = new >= (2.0 if tested.at is None else tested.at)
            found[name, error] = (int(taken.sum()), int((~truth[name][taken]).sum()))
    return found


def coverage_rows(
    answers: Sequence[ReviewedAnswer], size: int, splits: int, level: float, control: bool
) -> list[tuple[str, ...]]:
    """Return a row per field: the mean share accepted, its range, and the share wrong, by error."""
    draw = np.random.default_rng(0)
    runs = []
    for _ in range(splits):
        order = draw.permutation(len(answers))
        learned = [answers[i] for i in order[:size]]
        runs.append(accepted(learned, [answers[i] for i in order[size:]], level, control))
    rows, count = [], len(answers) - size
    for name in [*answers[0].right, WHOLE]:
        cells = []
        for error in ERRORS:
            shares = np.array([run[name, error][0] / count for run in runs])
            taken = sum(run[name, error][0] for run in runs)
            wrong = sum(run[name, error][1] for run in runs)
            low, high = np.quantile(shares, (0.025, 0.975))
            spread = f"{100 * shares.mean():.0f}% [{100 * low:.0f}, {100 * high:.0f}]"
            cells.append(f"{spread}, {100 * wrong / taken:.1f}% wrong" if taken else "none")
        rows.append((name, *cells))
    return rows


@click.command()
@click.argument("task_file", type=FILE)
@click.argument("answers_file", type=FILE)
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--calibrate", "size", type=int, default=100, help="Documents that calibrate.")
@click.option("--splits", type=int, default=50, help="Random splits.")
@options
def main(
    output: Output,
    *,
    task_file: Path,
    answers_file: Path,
    data: tuple[Path, ...],
    size: int,
    splits: int,
) -> None:
    """Print the tables of docs/benchmarks.md."""
    task = load_task(task_file)
    parts = []
    for path in data:
        documents = read_documents(path)
        parts.append(compare(task, documents, read_answers(answers_file, documents)))
    everything = [row for part in parts for row in part]
    _areas(output, everything)
    head = ("field", *(f"at most {error:.0%} wrong" for error in ERRORS))
    for control in (False, True):
        named = "log-probability alone" if control else "model"
        if len(parts) > 1:
            output.say(f"{named}: {data[0].name} calibrates, the others test; tests share delta")
            found = accepted(
                parts[0], [row for part in parts[1:] for row in part], DELTA / 4, control
            )
            output.table(head, _single(found, len(everything) - len(parts[0])))
        for level, how in ((DELTA / 4, "four tests share delta"), (DELTA, "each field alone")):
            output.say(f"{named}: {splits} splits, {size} calibrate; {how}")
            output.table(head, coverage_rows(everything, size, splits, level, control))


def _areas(output: Output, answers: Sequence[ReviewedAnswer]) -> None:
    rows = []
    for name, each in fit_promise(answers, ERRORS[-1], DELTA).quality().items():
        areas = [ranking.auroc for ranking in (each.model, each.logprob)]
        shown = [f"{a.mean:.3f} [{a.low:.3f}, {a.high:.3f}]" if a else "—" for a in areas]
        rows.append((name, each.right.percent(), *shown))
    output.table(("field", "right", "AUROC, model", "AUROC, log-probability alone"), rows)


def _single(found: dict[tuple[str, float], tuple[int, int]], count: int) -> list[tuple[str, ...]]:
    rows: dict[str, list[str]] = {}
    for (name, _), (taken, wrong) in found.items():
        share = wilson(taken, count).percent()
        rows.setdefault(name, []).append(f"{share}, {wrong} of {taken} wrong" if taken else "none")
    return [(name, *cells) for name, cells in rows.items()]


if __name__ == "__main__":
    main()
