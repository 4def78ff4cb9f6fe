"""The flowchart as text: every gate, where it leads, and the path taken in heavy lines.

Left out: a picture (`flowchart_svg`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from offapi.advise.engine import Advice
from offapi.advise.recipes import BY_RECIPE
from offapi.advise.rules import GATES, LAST

State = Literal["passed", "taken", "after"]


@dataclass(frozen=True)
class Step:
    """A gate as drawn. `recipes` are those it can lead to, or the one it led to."""

    asks: str
    exit: str
    on: str
    recipes: tuple[str, ...]
    state: State
    known: bool  # whether any of its questions was answered

    @property
    def leads(self) -> str:
        """Where it can lead, in words; more than two recipes are not spelled out."""
        return " / ".join(self.recipes) if len(self.recipes) <= 2 else "The best recipe it found"

    @property
    def passing(self) -> str:
        """The answer that leads to the next gate, and whether it was given."""
        return self.on if self.known or self.state != "passed" else f"{self.on} (not answered)"


@dataclass(frozen=True)
class End:
    """The recipe if no gate decides."""

    recipe: str
    taken: bool


def flowchart_steps(advice: Advice) -> tuple[list[Step], End]:
    """Return the gates in order, each with its part in the path, and the end."""
    steps = []
    for gate in GATES:
        state: State = (
            "taken" if gate == advice.gate else "passed" if gate in advice.passed else "after"
        )
        recipes = dict.fromkeys(BY_RECIPE[row.recipe].short for row in gate.rows)
        if state == "taken":
            recipes = {advice.recipe.short: None}
        asked = {when.split()[0] for row in gate.rows for when in row.when}
        steps.append(
            Step(
                gate.asks,
                gate.exit,
                gate.on,
                tuple(recipes),
                state,
                not asked.isdisjoint(advice.known.answers),
            )
        )
    return steps, End(BY_RECIPE[LAST.recipe].short, advice.gate is None)


def draw_text(advice: Advice) -> list[str]:
    """Return the lines of the flowchart, for a fixed-width font."""
    steps, end = flowchart_steps(advice)
    lines: list[str] = []
    for step in steps:
        lines += _gate(step)
    return [*lines, f"{'▶' if end.taken else '▷'} {_marked(end.recipe, end.taken)}"]


def _gate(step: Step) -> Sequence[str]:
    if step.state == "taken":
        return [
            f"◆ {step.asks}",
            f"┗━ {step.exit} ━▶ {_marked(step.recipes[0], True)}",
            f"╷  {step.on}",
        ]
    node, line, branch = ("◆", "┃", "┠") if step.state == "passed" else ("◇", "│", "├")
    return [
        f"{node} {step.asks}",
        f"{branch}─ {step.exit} ─▷ {step.leads}",
        f"{line}  {step.passing}",
    ]


def _marked(recipe: str, taken: bool) -> str:
    return f"[ {recipe.upper()} ]" if taken else recipe
