"""The questions behind the advice. Every one may be skipped.

Left out: what follows from the answers (`rules`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from offapi.text.amounts import read_amount

Kind = Literal["choice", "count", "months", "share"]
Value = str | float
Answers = Mapping[str, Value]  # by the question's key, without skipped ones


@dataclass(frozen=True)
class Question:
    """One question, as it is asked. Only a choice has `choices`."""

    key: str
    asks: str
    kind: Kind
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The question's flag on the command line."""
        return "--" + self.key.replace("_", "-")

    @property
    def hint(self) -> str:
        """What an answer looks like."""
        return {
            "choice": "/".join(self.choices),
            "count": "a number, as 50000 or 50k",
            "months": "a number of months",
            "share": "0 to 1",
        }[self.kind]

    def read(self, text: str) -> Value:
        """Read `text` as an answer. Raise ValueError, with the reason, if it is not one."""
        text = text.strip().lower()
        if self.kind == "choice":
            matches = [choice for choice in self.choices if text and choice.startswith(text)]
            if len(matches) != 1 and text not in self.choices:
                raise ValueError(f"must be one of {', '.join(self.choices)}")
            return text if text in self.choices else matches[0]
        percent = text.endswith("%") and self.kind == "share"
        try:
            number = read_amount(text.rstrip("%")) / (100 if percent else 1)
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
    _choice("narrow", "Is the task narrow: one kind of input, one answer format?", "yes", "no"),
    _choice("privacy", "Must the documents stay on your machines?", "stays", "free"),
    _choice(
        "maintainer",
        "Who will maintain the model? An expert has trained models before.",
        "nobody",
        "somebody",
        "expert",
    ),
    Question("lifetime", "For how many months will the task be needed?", "months"),
    Question(
        "withdrawn",
        "In how many months is the API's model, or its fine-tuning, withdrawn? Skip if never.",
        "months",
    ),
    Question("volume", "How many requests are there a month?", "count"),
    _choice("swings", "Do the requests come evenly, or in bursts?", "steady", "bursts"),
    _choice(
        "tried", "Did you try a small local model with worked examples in its prompt?", "yes", "no"
    ),
    Question(
        "prompted", "What share of documents did that small model get right in all fields?", "share"
    ),
    Question("target", "What share of documents must be right in all fields?", "share"),
    Question("inputs", "How many documents do you have?", "count"),
    Question("labels", "How many documents have an answer checked by a person?", "count"),
    Question("traces", "How many answers of your current model are logged?", "count"),
    _choice(
        "teacher",
        "Is there a stronger model to label documents, on your machines or elsewhere?",
        "none",
        "local",
        "elsewhere",
    ),
    Question(
        "teacher_quality",
        "What share does the stronger model (or your current model) get right in all fields?",
        "share",
    ),
    _choice(
        "terms",
        "Do the terms of the model behind those answers allow training on them?",
        "allowed",
        "forbidden",
        "unchecked",
    ),
    _choice(
        "scorable",
        "Can a function score an answer without knowing the correct one?",
        "yes",
        "partly",
        "no",
    ),
)
BY_KEY = {question.key: question for question in QUESTIONS}
# The result of a comparison on the user's own task; read from its file, never asked.
MEASURED = _choice(
    "measured",
    "Which recipe won on your own task?",
    "base",
    "sft",
    "distill",
    "graded",
    "grpo",
    "grpo_after",
)
