"""Advice as sentences for people, and as the object for --json.

Left out: the flowchart (`flowchart`, `flowchart_svg`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from offapi.advise.engine import Advice, Change, format_number, readable
from offapi.advise.recipes import BY_RECIPE
from offapi.advise.thresholds import Threshold

CHANGES = 8  # shown to people; all are in --json


def lines(advice: Advice, said: Sequence[str] = ()) -> list[str]:
    """Return the recommendation, the alternative, what would change it, and the first commands."""
    text = [
        f"Recommendation: {advice.recipe.name}.",
        f"  {advice.row.because}",
        *(f"  {note}" for note in advice.notes),
    ]
    text += [f"Alternative: {advice.other.name}.", f"  {advice.why_not}"]
    if advice.changes:
        text += ["These answers would change the recommendation:", *_changes(advice)]
    else:
        text.append("No single answer would change the recommendation.")
    figures = [*map(_figure, used(advice)), *said]
    if figures:
        text += ["Based on these figures:", *(f"  {figure}" for figure in figures)]
    else:
        text.append("Based on your answers alone: no figure decided.")
    return [*text, "Start with:", *(f"  {command}" for command in advice.commands)]


def used(advice: Advice) -> list[Threshold]:
    """Return the thresholds that an answer was compared with, up to the gate that decided."""
    known, gates = advice.known, [*advice.passed, advice.gate] if advice.gate else advice.passed
    compared: dict[str, Threshold] = {}
    for when in (when for gate in gates for row in gate.rows for when in row.when):
        key, _, name = when.split()
        if key in known.answers and name in known.thresholds:
            compared[name] = known.thresholds[name]
    return [*compared.values()]


def as_dict(advice: Advice, said: Sequence[str] = ()) -> dict[str, Any]:
    """Return what `--json` prints."""
    passed = [gate.key for gate in advice.passed]
    changes = [_change(change) for change in advice.changes]
    thresholds = [asdict(threshold) for threshold in used(advice)]
    return {
        "road": advice.recipe.key,
        "name": advice.recipe.name,
        "because": advice.row.because,
        "decided_by": advice.gate.key if advice.gate else None,
        "passed": passed,
        "not_taken": {"road": advice.other.key, "name": advice.other.name, "why": advice.why_not},
        "would_change": changes,
        "notes": list(advice.notes),
        "thresholds": thresholds,
        "measured": list(said),
        "commands": advice.commands,
        "answers": dict(advice.known.answers),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "question": change.question,
        "answer": change.answer,
        "road": change.recipe,
        "known": change.known,
    }


def _changes(advice: Advice) -> list[str]:
    # Given answers come first: they are known, and would have to change.
    ordered = sorted(advice.changes, key=lambda change: not change.known)
    text = []
    for change in ordered[:CHANGES]:
        answered = "" if change.known else " (not answered)"
        name = BY_RECIPE[change.recipe].name
        text.append(f"  {readable(change.question)} {change.answer}{answered}: {name}")
    more = len(ordered) - CHANGES
    if more > 0:
        text.append(f"  and {more} more (--json has all)")
    return text


def _figure(threshold: Threshold) -> str:
    amount = f"{format_number(threshold.value)} {threshold.unit}"
    if threshold.value >= 1e12:
        amount = "no volume"
    return f"{threshold.name} = {amount} ({threshold.source})"
