"""Show a finished comparison: a table with a column per model, sentences, the object for --json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from offapi.compare.config import RecipeName
from offapi.compare.data import Material
from offapi.compare.effort import Effort
from offapi.compare.ranking import BASE
from offapi.compare.run import RECORDED, TEACHER, Found
from offapi.files.hashing import sha256_path
from offapi.stats.contrast import Contrast
from offapi.text.display import plural

SOURCES = {
    BASE: "not trained",
    RECORDED: "answered earlier",
    TEACHER: "asked now",
    "sft": "people's answers",
    "distill": "the teacher's answers that passed the checks",
    "filtered_sft": "traces that passed the checks",
    "grpo": "no answers: documents and the checks",
}
NOTHING = "–"


def headers(result: Found) -> list[str]:
    """Return the columns: references first, then the arms in the order they ran."""
    return ["", *_order(result)]


def table(result: Found) -> list[list[str]]:
    """Return the lines: data and effort, accuracy, differences, and the ceiling of each arm."""
    names = _order(result)
    efforts: dict[str, Callable[[Effort], str]] = {
        "human minutes (assumed)": lambda cost: f"{cost.human_minutes:.0f}",
        "teacher tokens, in + out": _tokens,
        "teacher's price": _dollars,
        "machine minutes": lambda cost: f"{cost.machine_minutes:.1f}",
        "kWh": lambda cost: f"{cost.kwh:.3g}",
    }
    lines = [["rows used", *(_rows(result, name) for name in names)]]
    lines.append(["where they came from", *(_source(result, name) for name in names)])
    for title, show in efforts.items():
        lines.append([title, *(_cost(result, name, show) for name in names)])
    for field in next(iter(result.reports.values())).fields:
        lines.append([field, *(result.reports[name].fields[field].percent() for name in names)])
    lines.append(["all fields", *(result.reports[name].all_fields.percent() for name in names)])
    ranked = result.verdicts.rows
    lines.append(
        [
            f"minus the best ({result.verdicts.best})",
            *(_points(ranked[name].to_best) for name in names),
        ]
    )
    if RECORDED in result.reports:
        lines.append(["minus the recorded", *(_points(ranked[name].to_recorded) for name in names)])
    return [*lines, ["ceiling", *(_ceiling(result, name) for name in names)]]


def lines(result: Found) -> list[str]:
    """Return the verdicts, what was left out, the recommendation and the method."""
    keys, verdicts = result.plan.keys, result.verdicts
    recipes = [name for name in _order(result) if name in result.costs]
    text = [f"{name}: {verdicts.rows[name].verdict}." for name in recipes]
    text += [
        f"{recipe}: {outcome.gate}"
        for recipe, outcome in result.outcomes.items()
        if outcome.gate and recipe in recipes
    ]
    text += [
        f"Left out: {name}, {why.rstrip('.')}."
        for name, why in result.left_out.items()
        if why != "not asked for"
    ]
    if RECORDED in result.reports:
        near = f"{100 * keys.margin:.1f} points"
        able = [name for name in recipes if verdicts.rows[name].replaces]
        text.append(
            f"At most {near} below the recorded answers (shown): {', '.join(able) or 'none'}."
        )
    text.append(f"Take {verdicts.take}: " + _take(result))
    return [*text, *_method(result)]


def as_dict(result: Found) -> dict[str, Any]:
    """Return the object for compare.json and --json."""
    plan, keys = result.plan, result.plan.keys
    assumed = {
        "label_minutes": keys.label_minutes,
        "watts": keys.watts,
        "price": keys.price and asdict(keys.price),
    }
    return {
        "name": keys.name,
        "config": keys.as_dict(),
        "backend": plan.backend,
        "model": keys.model,
        "test": {
            "documents": len(plan.material.test),
            "near_left_out": plan.material.near,
            "set_aside": len(plan.material.held),
            "data": str(keys.test.absolute()),
            "sha256": sha256_path(keys.test),
        },
        "assumed": assumed,
        "margin": keys.margin,
        "correction": f"Holm over {plural(result.verdicts.pairs, 'pair')}",
        "best": result.verdicts.best,
        "take": result.verdicts.take,
        "rows": {name: _row(result, name) for name in _order(result)},
        "left_out": dict(result.left_out),
    }


def _row(result: Found, name: str) -> dict[str, Any]:
    report, ranked = result.reports[name], asdict(result.verdicts.rows[name])
    row: dict[str, Any] = {"source": SOURCES[name], "report": report.as_dict(), **ranked}
    row["answering"] = dict(result.answering.get(name, {})) or None
    path = result.predictions.get(name)
    row["predictions"] = str(path) if path else None
    recipe = _recipe(result, name)
    if recipe is not None:
        outcome, cost = result.outcomes[recipe], result.costs[name]
        arm = result.arms[recipe]
        row["arm"] = {
            "path": str(arm.path),
            "start": arm.start.recipe if arm.start else None,
            **asdict(outcome),
        }
        row["cost"] = {**asdict(cost), "hours": cost.hours}
    return row


def _order(result: Found) -> list[str]:
    """Return the references, the base, then the arms."""
    front = [name for name in (RECORDED, TEACHER, BASE) if name in result.reports]
    return front + [name for name in result.reports if name not in front]


def _recipe(result: Found, name: str) -> RecipeName | None:
    """Return `name` as a recipe; None if it is a reference."""
    return next((recipe for recipe in result.outcomes if recipe == name), None)


def _rows(result: Found, name: str) -> str:
    recipe = _recipe(result, name)
    if recipe is None:
        return NOTHING
    outcome = result.outcomes[recipe]
    if outcome.rows == outcome.of:
        return f"{outcome.rows}"
    return f"{outcome.rows} of {outcome.of}"


def _source(result: Found, name: str) -> str:
    recipe = _recipe(result, name)
    start = result.arms[recipe].start if recipe else None
    return f"{SOURCES[name]}; from {start.recipe}" if start else SOURCES[name]


def _cost(result: Found, name: str, show: Callable[[Effort], str]) -> str:
    return show(result.costs[name]) if name in result.costs else NOTHING


def _tokens(cost: Effort) -> str:
    if cost.usage is None:
        return "not counted"
    return (
        f"{cost.usage.prompt_tokens:,} + {cost.usage.completion_tokens:,}"
        if cost.usage.prompt_tokens
        else "none"
    )


def _dollars(cost: Effort) -> str:
    return "not known" if cost.dollars is None else f"${cost.dollars:.2f}"


def _points(contrast: Contrast | None) -> str:
    return contrast.difference.points() if contrast else NOTHING


def _ceiling(result: Found, name: str) -> str:
    recipe = _recipe(result, name)
    if recipe is None:
        return NOTHING
    if recipe == "sft":
        return "your labels"
    if recipe == "grpo":
        return "none"
    known = result.outcomes[recipe].ceiling
    whose = "the teacher" if recipe == "distill" else "the kept traces"
    return (
        f"{whose}: {known.right.percent()} of {known.n}"
        if known
        else f"{whose}, unknown without gold"
    )


def _take(result: Found) -> str:
    slower = [
        name
        for name, cost in result.costs.items()
        if cost.hours > _hours(result, result.verdicts.take)
    ]
    if not slower:
        return "it is shown to be better than everything that takes fewer hours."
    return f"nothing that takes more hours ({', '.join(slower)}) is shown to be better."


def _hours(result: Found, name: str) -> float:
    return result.costs[name].hours if name in result.costs else 0.0


def _method(result: Found) -> list[str]:
    keys, n = result.plan.keys, len(result.plan.material.test)
    return [
        (
            f"{plural(n, 'test document')}; the verdicts are about `all fields`. Each arm is"
            " compared with the best one that takes fewer hours. The p values are corrected (Holm)"
            f" over all {plural(result.verdicts.pairs, 'pair')}; each interval is 95% on its own."
        ),
        (
            f"Assumed: {keys.label_minutes:g} min of a person per gold answer, {keys.watts:g} W."
            " Measured: machine minutes. Each arm was trained once; another seed would change it."
            " Not counted: work that every recipe needs (the task, its checks, val and test)."
        ),
        *rows_left_out(result.plan.material),
    ]


def rows_left_out(material: Material) -> list[str]:
    """Return why the recipes train on fewer rows than the files hold."""
    near, held, text = material.near, len(material.held), []
    if near:
        rows = plural(near, "document or trace", "documents or traces")
        text.append(f"Left out of all training data: {rows} near a test document.")
    if held:
        text.append(
            f"Kept out of all training data: {plural(held, 'document')}, on which grpo picks its"
            " best step. To train on them, set val to a file of its own."
        )
    return text
