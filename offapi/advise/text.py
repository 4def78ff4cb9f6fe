"""Advice in words for people, and as the object for --json.

Left out: the flowchart (`flowchart`, `flowchart_svg`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from offapi.advise.engine import Advice, Change, format_number
from offapi.advise.recipes import BY_RECIPE
from offapi.advise.thresholds import Threshold

CHANGES = 8  # told to people; all are in --json


def lines(advice: Advice, said: Sequence[str] = ()) -> list[str]:
    """The road, the one not taken, what would change
    it, the figures it rests on, the first commands.
    """
    told = [
        f"Take this road: {advice.recipe.name}.",
        f"  {advice.row.because}",
        *(f"  {note}" for note in advice.notes),
    ]
    told += [f"Not taken: {advice.other.name}.", f"  {advice.why_not}"]
    told += (
        ["What would change this:", *_changes(advice)]
        if advice.changes
        else ["No single answer would change this."]
    )
    told += ["Figures it rests on:", *(f"  {_figure(one)}" for one in used(advice))]
    told += [f"  {line}" for line in said]
    return [*told, "Begin with:", *(f"  {command}" for command in advice.commands)]


def used(advice: Advice) -> list[Threshold]:
    """The thresholds of the gates up to the one that decided, in the order they are met."""
    gates = [*advice.passed, *([advice.gate] if advice.gate else [])]
    named = [when.split()[2] for gate in gates for row in gate.rows for when in row.when]
    return [
        advice.known.thresholds[name]
        for name in dict.fromkeys(named)
        if name in advice.known.thresholds
    ]


def as_dict(advice: Advice, said: Sequence[str] = ()) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "road": advice.recipe.key,
        "name": advice.recipe.name,
        "because": advice.row.because,
        "decided_by": advice.gate.key if advice.gate else None,
        "passed": [gate.key for gate in advice.passed],
        "not_taken": {"road": advice.other.key, "name": advice.other.name, "why": advice.why_not},
        "would_change": [_change(change) for change in advice.changes],
        "notes": list(advice.notes),
        "thresholds": [asdict(one) for one in used(advice)],
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
    """Answers given first: they are known, and would have to change."""
    ordered = sorted(advice.changes, key=lambda change: not change.known)
    told = []
    for change in ordered[:CHANGES]:
        answered = "" if change.known else " (not answered)"
        question, name = change.question.replace("_", " "), BY_RECIPE[change.recipe].name
        told.append(f"  {question} {change.answer}{answered}: {name}")
    more = len(ordered) - CHANGES
    return [*told, *([f"  and {more} more (--json has all)"] if more > 0 else [])]


def _figure(one: Threshold) -> str:
    amount = "no volume" if one.value >= 1e12 else f"{format_number(one.value)} {one.unit}"
    return f"{one.name} = {amount} ({one.source})"
