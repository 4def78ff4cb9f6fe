"""Evaluate the rules: the recipe, the gates passed, the alternative, and what would change it.

Left out: the rules themselves (`rules`), and all texts except those made from conditions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from offapi.advise.questions import QUESTIONS, Answers, Question, Value
from offapi.advise.recipes import BY_RECIPE, Recipe
from offapi.advise.rules import GATES, LAST, NOTES, AdviceRule, Gate
from offapi.advise.thresholds import THRESHOLDS, Threshold

Op = Literal["is", "is-not", "below", "not-below", "at-least", "above", "before", "not-before"]
WORDS = {
    "is": "is not {value}",
    "is-not": "is {value}",
    "below": "is not below {value}",
    "not-below": "is below {value}",
    "at-least": "is below {value}",
    "above": "is not above {value}",
    "before": "is not before {value}",
    "not-before": "is before {value}",
}  # how a condition fails
STEP = 1e-3  # how far below a threshold of a share to go


@dataclass(frozen=True)
class KnownAnswers:
    """The answers, and the thresholds that apply."""

    answers: Answers
    thresholds: Mapping[str, Threshold]

    def value(self, name: str) -> Value | None:
        """Return what a condition's VALUE stands for: an answer, a threshold or a choice."""
        if name.startswith("@"):
            return self.answers.get(name[1:])
        return self.thresholds[name].value if name in self.thresholds else name

    def holds(self, condition: str) -> bool:
        """Return whether a condition is known to hold."""
        key, op, name = condition.split()
        answer, value = self.answers.get(key), self.value(name)
        if answer is None:
            return op in ("is-not", "not-below", "not-before")
        if value is None:
            return op in ("is-not", "not-below", "before")
        if op in ("is", "is-not"):
            return (answer == value) == (op == "is")
        a, b = float(answer), float(value)
        if op in ("below", "before"):
            return a < b
        return a > b if op == "above" else a >= b

    def failing(self, row: AdviceRule) -> list[str]:
        """Return the conditions of `row` that do not hold."""
        return [condition for condition in row.when if not self.holds(condition)]

    def fails(self, condition: str) -> str:
        """Return why a condition does not hold, in words."""
        key, op, name = condition.split()
        if key not in self.answers:
            return f"{readable(key)} is unknown"
        value = self.value(name)
        if value is None:
            return f"{readable(name[1:])} is unknown"
        limit = value if isinstance(value, str) else format_number(value)
        return f"{readable(key)} {WORDS[op].format(value=limit)}"


@dataclass(frozen=True)
class Change:
    """Another answer to one question, and the recipe it leads to."""

    question: str
    answer: str
    recipe: str
    known: bool  # whether the question was answered


@dataclass(frozen=True)
class Advice:
    """The recommended recipe, and everything that was considered."""

    recipe: Recipe
    row: AdviceRule
    passed: tuple[Gate, ...]  # the gates before the one that decided
    gate: Gate | None  # the gate that decided; None if none did
    other: Recipe
    why_not: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    known: KnownAnswers

    @property
    def commands(self) -> list[str]:
        """The first three commands, filled in from the answers."""
        elsewhere = self.known.answers.get("teacher") == "elsewhere"
        teacher = (
            "https://YOUR-TEACHER/v1 --teacher-terms-checked"
            if elsewhere
            else "http://127.0.0.1:8080/v1"
        )
        first = next((name for name, row in STARTS if not self.known.failing(row)), "sft")
        return [
            command.replace("{teacher}", teacher).replace("{first}", first)
            for command in self.recipe.commands
        ]


STARTS = (  # recipes for the student that GRPO starts from: the first that the data allow
    ("sft", AdviceRule(("labels at-least check",), "", "")),
    ("filtered_sft", AdviceRule(("traces at-least answers",), "", "")),
    ("distill", AdviceRule(("teacher is-not none",), "", "")),
)


def advise(answers: Answers, measured: Sequence[Threshold] = ()) -> Advice:
    """Return the advice for `answers`.

    Thresholds that were `measured` replace the rules of thumb of the same name.
    """
    thresholds = {threshold.name: threshold for threshold in (*THRESHOLDS, *measured)}
    known = KnownAnswers(answers, thresholds)
    gate, row = decide_gate(known)
    passed = GATES[: GATES.index(gate)] if gate else GATES
    other, why_not = _other(known, gate, row)
    notes = [
        note.text
        for note in NOTES
        if row.recipe in note.recipes and not known.failing(AdviceRule(note.when, "", ""))
    ]
    recipe = BY_RECIPE[row.recipe]
    return Advice(
        recipe,
        row,
        tuple(passed),
        gate,
        other,
        why_not,
        tuple(possible_changes(known, recipe)),
        tuple(notes),
        known,
    )


def decide_gate(known: KnownAnswers) -> tuple[Gate | None, AdviceRule]:
    """Return the first row whose conditions all hold, and its gate."""
    return next(_matches(known), (None, LAST))


def _matches(known: KnownAnswers) -> Iterator[tuple[Gate | None, AdviceRule]]:
    return ((gate, row) for gate in GATES for row in gate.rows if not known.failing(row))


def _other(known: KnownAnswers, gate: Gate | None, row: AdviceRule) -> tuple[Recipe, str]:
    """Return the next best recipe, and why it is not the recommendation."""
    later = next((match for _, match in _matches(known) if match.recipe != row.recipe), None)
    if later is not None:
        recipe = BY_RECIPE[later.recipe]
        why = f"The recommendation comes first: {row.because}"
        return recipe, f"{why} Against this alternative: {recipe.against}."
    rules = [rule for gate in GATES if gate.key != "measured" for rule in gate.rows]
    training = [rule for rule in rules if rule.recipe not in ("no", "api", "prompt", row.recipe)]
    nearest = min(training, key=lambda rule: len(known.failing(rule)))
    reasons = ", ".join(map(known.fails, known.failing(nearest)))
    return BY_RECIPE[nearest.recipe], f"Not possible now: {reasons}."


def possible_changes(known: KnownAnswers, recipe: Recipe) -> list[Change]:
    """Return the other recipes that a different answer to one question leads to.

    Of several such answers, the nearest counts.
    """
    changes = []
    for question in QUESTIONS:
        seen: dict[str, str] = {}
        for value, text in sorted(
            _others(known, question), key=lambda other: _distance(known, question, other[0])
        ):
            row = decide_gate(replace(known, answers={**known.answers, question.key: value}))[1]
            if row.recipe != recipe.key:
                seen.setdefault(row.recipe, text)
        changes += [
            Change(question.key, text, name, question.key in known.answers)
            for name, text in seen.items()
        ]
    return changes


def _others(known: KnownAnswers, question: Question) -> list[tuple[Value, str]]:
    """Return the answers that could matter, with their texts.

    They are the other choices, or numbers on both sides of what they are compared with.
    """
    if question.kind == "choice":
        return [
            (choice, choice)
            for choice in question.choices
            if choice != known.answers.get(question.key)
        ]
    compared: set[float] = set()
    for key, _, name in (when.split() for gate in GATES for row in gate.rows for when in row.when):
        values = [known.value(name)] if key == question.key else []
        values += [known.answers.get(key)] if name == f"@{question.key}" else []
        compared |= {float(value) for value in values if isinstance(value, float | int)}
    step, most = (STEP, 1.0) if question.kind == "share" else (1, float("inf"))
    sides: list[tuple[float, str]] = []
    unit = " months" if question.kind == "months" else ""
    for limit in sorted(compared):
        shown = f"{format_number(limit)}{unit}"
        sides += [
            (limit - step, f"below {shown}"),
            (limit, f"{shown} or more"),
            (limit + step, f"above {shown}"),
        ]
    return [(value, text) for value, text in sides if 0 <= value <= most]


def _distance(known: KnownAnswers, question: Question, value: Value) -> float:
    now = known.answers.get(question.key)
    if isinstance(value, str) or isinstance(now, str) or now is None:
        return 0.0
    return abs(value - now)


def format_number(value: float) -> str:
    """Format a number as `150,000` or `0.05`."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def readable(key: str) -> str:
    """Return a question's key as words."""
    return key.replace("_", " ")
