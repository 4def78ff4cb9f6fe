"""Accuracy against the number of training rows: one arm per size and draw, then a curve.

The arms are those of `offapi.compare.arm`: a curve resumes point by point, and its largest point
is the comparison's own arm. Left out: grpo, whose rows have no answers to count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from offapi.compare import score_arm, train_arm
from offapi.compare.arm import DATA, Arm, make_arm
from offapi.compare.config import Keys, RecipeName
from offapi.compare.curve.nested_samples import curve_sizes, nested_sample
from offapi.compare.curve.power_law import Curve, Points, fit_curve
from offapi.compare.curve.rows_needed import FAR, RowsNeeded
from offapi.compare.data import Material, read_material
from offapi.compare.forecast import forecast_arm, measure_machine
from offapi.errors import ConfigError, DataError
from offapi.evaluation.accuracy import Prediction
from offapi.evaluation.evaluate import Questions
from offapi.progress import Progress
from offapi.text.display import plural


@dataclass(frozen=True)
class Point:
    """One student, trained on `size` rows of the nested draw number `draw`."""

    size: int
    draw: int
    arm: Arm


@dataclass(frozen=True)
class Reached:
    """A finished point: how many of the drawn rows were learned from, and the answers."""

    point: Point
    rows: int
    predictions: tuple[Prediction, ...]

    @property
    def right(self) -> list[bool]:
        """For each test document, whether all fields are right."""
        return [all(row.correct.values()) for row in self.predictions]


@dataclass(frozen=True)
class CurvePlan:
    """All points, the smallest first in each draw."""

    keys: Keys
    recipe: RecipeName
    backend: str
    material: Material
    points: tuple[Point, ...]


def plan_curve(
    keys: Keys,
    recipe: RecipeName,
    backend: str,
    asked: Sequence[int],
    draws: int,
    data: Path | None = None,
) -> CurvePlan:
    """Read all data and name the points.

    Raise ConfigError if the data do not allow a curve of `recipe`.
    """
    material = read_material(keys)
    why = material.refusal(recipe)
    if why is None and recipe == "distill" and keys.labels is None and keys.teacher != "recorded":
        why = (
            "its teacher would be asked again for every point: label once with `offapi label`, then"
            " set labels"
        )
    if why is not None:
        raise ConfigError(
            f"the data do not allow a curve of {recipe}: {why}.",
            where=f"--recipe {recipe}",
            next_step="Fix that, or name another recipe.",
        )
    rows = material.rows(recipe)
    folder, points = data or keys.out / DATA, []
    for draw in range(draws):
        for size in curve_sizes(len(rows), asked):
            sample = nested_sample(rows, size, draw)
            arm = make_arm(keys, recipe, sample, backend, folder, seed=keys.seed + draw)
            points.append(Point(size, draw, arm))
    return CurvePlan(keys, recipe, backend, material, tuple(points))


def forecast_seconds(plan: CurvePlan, progress: Progress) -> float:
    """Return the most seconds that the unfinished points take."""
    machine, seconds = measure_machine(plan.keys, plan.backend), 0.0
    for point in plan.points:
        if train_arm.read_outcome(point.arm) is None:
            try:
                seconds += forecast_arm(
                    point.arm, plan.material.task, plan.material.test, machine, progress
                ).seconds
            except DataError as error:
                progress.say(f"{plural(point.size, 'row')}, draw {point.draw + 1}: {error.what}")
    return seconds


def train_points(plan: CurvePlan, progress: Progress) -> list[Reached]:
    """Train and score every point. A point whose rows are all dropped is reported and skipped."""
    questions = Questions(plan.material.task, plan.keys.test, plan.material.test)
    reached = []
    for point in plan.points:
        progress.say(f"{plural(point.size, 'row')}, draw {point.draw + 1}")
        try:
            outcome = train_arm.reach_outcome(point.arm, plan.material.task, plan.backend, progress)
        except DataError as error:
            progress.say(
                f"{plural(point.size, 'row')}, draw {point.draw + 1}, skipped: {error.what}"
            )
            continue
        adapter = outcome.adapter or "adapter"
        scored = score_arm.score_student(
            point.arm.path, adapter, plan.keys, questions, plan.backend, progress
        )
        reached.append(Reached(point, outcome.rows, scored.report.predictions))
    return reached


def fit_points(reached: Sequence[Reached]) -> Curve:
    """Fit the curve through the points. Raise DataError if there are too few."""
    groups: dict[object, int] = {}
    rows = reached[0].predictions if reached else ()
    units = [
        groups.setdefault(i if row.group is None else row.group, len(groups))
        for i, row in enumerate(rows)
    ]
    sizes = np.array([one.rows for one in reached], np.float64)
    draws = np.array([one.point.draw for one in reached], np.int64)
    right = np.array([one.right for one in reached], np.float64)
    return fit_curve(Points(sizes, draws, right, np.array(units, np.int64)))


def curve_table(reached: Sequence[Reached], curve: Curve) -> list[tuple[str, ...]]:
    """Return a line for each size: rows, draws, mean accuracy, its spread, and the curve there."""
    lines: list[tuple[str, ...]] = []
    for size in sorted({one.point.size for one in reached}):
        draws = [one for one in reached if one.point.size == size]
        means = [fmean(one.right) for one in draws]
        rows = fmean(one.rows for one in draws)
        spread = f"{100 * stdev(means):.1f}" if len(means) > 1 else "–"
        fitted = "–" if curve.misfit else curve.band(rows).percent()
        lines.append((f"{rows:.0f}", f"{len(draws)}", f"{100 * fmean(means):.1f}", spread, fitted))
    return lines


def curve_lines(plan: CurvePlan, curve: Curve, answer: RowsNeeded | None) -> list[str]:
    """Return what the curve says, and how far to trust it."""
    draws = len({point.draw for point in plan.points})
    if curve.misfit is not None:
        reached = [answer.text] if answer and answer.kind == "there" else []
        return [curve.misfit, *reached]
    test = len(plan.material.test)
    documents = plural(test, "test document")
    few = (
        " One draw does not show how much another would differ: use --draws 3." if draws < 2 else ""
    )
    lines = [f"Twice the rows would change accuracy by about {curve.doubling().points()} points."]
    if answer:
        lines.append(answer.text)
    lines.append(
        f"Fitted: all fields right = a - b n^-c, a = {curve.law.a:.3f}, c = {curve.law.c:.2f};"
        f" 95% intervals by a bootstrap over {plural(draws, 'nested draw')} and {documents}."
        f" The curve does not extend beyond {FAR} times the"
        f" {plural(round(curve.have), 'row')}.{few}"
    )
    return lines


def curve_as_dict(
    plan: CurvePlan, reached: Sequence[Reached], curve: Curve, answer: RowsNeeded | None
) -> dict[str, Any]:
    """Return the object for --json."""
    points: list[Mapping[str, Any]] = [
        {
            "rows": one.rows,
            "drawn": one.point.size,
            "draw": one.point.draw,
            "right": fmean(one.right),
        }
        | {"arm": str(one.point.arm.path)}
        for one in reached
    ]
    steps = sorted({float(one.rows) for one in reached} | {2 * curve.have, FAR * curve.have})
    forecast = curve.misfit is None
    return {
        "road": plan.recipe,
        "backend": plan.backend,
        "test": len(plan.material.test),
        "points": points,
        "law": asdict(curve.law),
        "misfit": curve.misfit,
        "curve": [{"rows": n, **asdict(curve.band(n))} for n in steps] if forecast else [],
        "doubling": asdict(curve.doubling()) if forecast else None,
        "answer": asdict(answer) if answer else None,
    }
