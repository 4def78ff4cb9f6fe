"""What has to be known to advise.

Every question may be skipped. Left out: what follows from the answers (`rules`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["choice", "count", "months", "share"]
Value = str | float
Answers = Mapping[str, Value]  # by the question's key; skipped ones are not in it


@dataclass(frozen=True)
class Question:
    """One question, as it is asked. `choices` of a choice alone."""

    key: str
    asks: str
    kind: Kind
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.key.replace("_", "-")

    @property
    def hint(self) -> str:
        """What an answer looks like."""
        return {
            "choice": "/".join(self.choices),
            "count": "a number",
            "months": "months",
            "share": "0 to 1",
        }[self.kind]

    def read(self, text: str) -> Value:
        """`text` as an answer; ValueError, with the reason, where it is none."""
        text = text.strip().lower()
        if self.kind == "choice":
            found = [choice for choice in self.choices if text and choice.startswith(text)]
            if len(found) != 1 and text not in self.choices:
                raise ValueError(f"must be one of {', '.join(self.choices)}")
            return text if text in self.choices else found[0]
        try:
            number = float(text.rstrip("%")) / (
                100 if text.endswith("%") and self.kind == "share" else 1
            )
        except ValueError:
            raise ValueError(f"must be {self.hint}") from None
        if not 0 <= number < math.inf or (self.kind == "share" and number > 1):
            raise ValueError(
                f"must be {self.hint}" if self.kind == "share" else "must be 0 or more"
            )
        return number


def _choice(key: str, asks: str, *choices: str) -> Question:
    return Question(key, asks, "choice", choices)


QUESTIONS = (
    _choice("narrow", "Is the task narrow: one kind of input, one form of answer?", "yes", "no"),
    _choice("privacy", "Must the documents stay with you?", "stays", "free"),
    _choice(
        "maintainer",
        "Who will look after a model? An expert has trained models before.",
        "nobody",
        "somebody",
        "expert",
    ),
    Question("lifetime", "How many months will the task live?", "months"),
    Question("volume", "How many requests a month?", "count"),
    _choice("swings", "Do they come evenly, or in bursts?", "steady", "bursts"),
    _choice(
        "tried", "Was a small local model tried, with worked examples in its prompt?", "yes", "no"
    ),
    Question("prompted", "Which share of documents did it get wholly right?", "share"),
    Question("target", "Which share has to be wholly right?", "share"),
    Question("inputs", "How many documents do you have?", "count"),
    Question("labels", "How many with an answer that a person checked?", "count"),
    Question("traces", "How many answers of your present agent are logged?", "count"),
    _choice(
        "teacher",
        "Is there a stronger model that could label: on your machines, or elsewhere?",
        "none",
        "local",
        "elsewhere",
    ),
    Question(
        "teacher_quality", "Which share does it (or your present agent) get wholly right?", "share"
    ),
    _choice(
        "terms",
        "Do the terms of whoever wrote those answers allow training on them?",
        "allowed",
        "forbidden",
        "unchecked",
    ),
    _choice(
        "scorable",
        "Can a function score an answer without knowing the right one?",
        "yes",
        "partly",
        "no",
    ),
)
BY_KEY = {question.key: question for question in QUESTIONS}
# What a comparison on the user's own task found; read from its file, never asked.
MEASURED = _choice(
    "measured",
    "Which road won on your own task?",
    "base",
    "sft",
    "distill",
    "graded",
    "grpo",
    "grpo_after",
)
