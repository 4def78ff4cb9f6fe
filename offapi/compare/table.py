"""A finished comparison shown: one table with a column
for each row of it, sentences, and the object for --json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from offapi.compare.config import RecipeName
from offapi.compare.effort import Effort
from offapi.compare.ranking import BASE
from offapi.compare.run import RECORDED, TEACHER, Found
from offapi.files.hashing import sha256_path
from offapi.stats.contrast import Contrast
from offapi.text.display import plural

SOURCES = {
    BASE: "nothing learned",
    RECORDED: "answered before",
    TEACHER: "asked now",
    "sft": "people's answers",
    "distill": "the teacher's answers, kept by the checks",
    "filtered_sft": "traces, kept by the checks",
    "grpo": "no answers: documents and the checks",
}
NOTHING = "–"


def headers(found: Found) -> list[str]:
    """The columns: references first, then the roads as they were run."""
    return ["", *_order(found)]


def table(found: Found) -> list[list[str]]:
    """The lines: what each took, how good it is, how it stands to the others, what bounds it."""
    names = _order(found)
    lines = [
        ["rows used", *(_rows(found, name) for name in names)],
        ["where they came from", *(_source(found, name) for name in names)],
        [
            "human minutes (assumed)",
            *(_cost(found, name, lambda c: f"{c.human_minutes:.0f}") for name in names),
        ],
        ["teacher tokens, in + out", *(_cost(found, name, _tokens) for name in names)],
        ["teacher's price", *(_cost(found, name, _dollars) for name in names)],
        [
            "machine minutes",
            *(_cost(found, name, lambda c: f"{c.machine_minutes:.1f}") for name in names),
        ],
        ["kWh", *(_cost(found, name, lambda c: f"{c.kwh:.3g}") for name in names)],
    ]
    fields = list(next(iter(found.reports.values())).fields)
    lines += [
        [field, *(found.reports[name].fields[field].percent() for name in names)]
        for field in fields
    ]
    lines.append(["all fields", *(found.reports[name].all_fields.percent() for name in names)])
    judged = found.verdicts.rows
    lines.append(
        [
            f"less the best ({found.verdicts.best})",
            *(_points(judged[name].to_best) for name in names),
        ]
    )
    if RECORDED in found.reports:
        lines.append(["less the recorded", *(_points(judged[name].to_recorded) for name in names)])
    return [*lines, ["ceiling", *(_ceiling(found, name) for name in names)]]


def lines(found: Found) -> list[str]:
    """The verdicts, what to take, who was left out, and how it was reckoned."""
    keys, verdicts = found.plan.keys, found.verdicts
    recipes = [name for name in _order(found) if name in found.costs]
    told = [f"{name}: {verdicts.rows[name].verdict}." for name in recipes]
    told += [
        f"{recipe}: {one.gate}"
        for recipe, one in found.outcomes.items()
        if one.gate and recipe in recipes
    ]
    told += [
        f"Left out: {name}, {why.rstrip('.')}."
        for name, why in found.left_out.items()
        if why != "not asked for"
    ]
    if RECORDED in found.reports:
        near = f"{100 * keys.margin:.1f} points"
        able = [name for name in recipes if verdicts.rows[name].replaces]
        told.append(
            f"Not more than {near} below the recorded answers:"
            f" {', '.join(able) or 'none is shown to be'}."
        )
    told.append(f"Take {verdicts.take}: " + _take(found))
    return [*told, *_method(found)]


def as_dict(found: Found) -> dict[str, Any]:
    """The object for compare.json and --json."""
    plan, keys = found.plan, found.plan.keys
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
        "correction": f"Holm over {found.verdicts.pairs} pairs",
        "best": found.verdicts.best,
        "take": found.verdicts.take,
        "rows": {name: _row(found, name) for name in _order(found)},
        "left_out": dict(found.left_out),
    }


def _row(found: Found, name: str) -> dict[str, Any]:
    report, judged = found.reports[name], asdict(found.verdicts.rows[name])
    row: dict[str, Any] = {"source": SOURCES[name], "report": report.as_dict(), **judged}
    row["answering"] = dict(found.answering.get(name, {})) or None
    path = found.predictions.get(name)
    row["predictions"] = str(path) if path else None
    recipe = _road(found, name)
    if recipe is not None:
        outcome, cost = found.outcomes[recipe], found.costs[name]
        arm = found.arms[recipe]
        row["arm"] = {
            "path": str(arm.path),
            "start": arm.start.recipe if arm.start else None,
            **asdict(outcome),
        }
        row["cost"] = {**asdict(cost), "hours": cost.hours}
    return row


def _order(found: Found) -> list[str]:
    """References, the base, then roads."""
    front = [name for name in (RECORDED, TEACHER, BASE) if name in found.reports]
    return front + [name for name in found.reports if name not in front]


def _road(found: Found, name: str) -> RecipeName | None:
    return next((recipe for recipe in found.outcomes if recipe == name), None)


def _rows(found: Found, name: str) -> str:
    recipe = _road(found, name)
    if recipe is None:
        return NOTHING
    one = found.outcomes[recipe]
    return f"{one.rows}" if one.rows == one.of else f"{one.rows} of {one.of}"


def _source(found: Found, name: str) -> str:
    recipe = _road(found, name)
    start = found.arms[recipe].start if recipe else None
    return f"{SOURCES[name]}; from {start.recipe}" if start else SOURCES[name]


def _cost(found: Found, name: str, told: Any) -> str:
    return str(told(found.costs[name])) if name in found.costs else NOTHING


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


def _points(one: Contrast | None) -> str:
    return one.difference.points() if one else NOTHING


def _ceiling(found: Found, name: str) -> str:
    recipe = _road(found, name)
    if recipe is None:
        return NOTHING
    if recipe == "sft":
        return "your labels"
    if recipe == "grpo":
        return "none"
    known = found.outcomes[recipe].ceiling
    whose = "the teacher" if recipe == "distill" else "the kept traces"
    return (
        f"{whose}: {known.right.percent()} of {known.n}"
        if known
        else f"{whose}, not known without gold"
    )


def _take(found: Found) -> str:
    dearer = [
        name
        for name, cost in found.costs.items()
        if cost.hours > _hours(found, found.verdicts.take)
    ]
    if not dearer:
        return "it is shown to be better than what takes fewer hours."
    return f"nothing that takes more hours ({', '.join(dearer)}) is shown to be better."


def _hours(found: Found, name: str) -> float:
    return found.costs[name].hours if name in found.costs else 0.0


def _method(found: Found) -> Sequence[str]:
    keys, n = found.plan.keys, len(found.plan.material.test)
    near, held = found.plan.material.near, len(found.plan.material.held)
    return [
        (
            f"{plural(n, 'test document')}; `all fields` is what is judged. A road's rival is the"
            " best that takes fewer hours; p values by Holm over all"
            f" {found.verdicts.pairs} pairs of roads, intervals each 95% by itself."
        ),
        (
            f"Assumed: {keys.label_minutes:g} min of a person for a gold answer, {keys.watts:g} W."
            " Measured: minutes. Each road was trained once; another seed would move it too. Not"
            " counted: the task, its checks, the val and test answers, which every road needs."
        ),
        *(
            [
                f"{plural(near, 'document')} or {'trace' if near == 1 else 'traces'} near a test"
                " document left out of every road."
            ]
            if near
            else []
        ),
        *(
            [
                f"{held} documents set aside from every road for grpo to choose its step on; or set"
                " val."
            ]
            if held
            else []
        ),
    ]
