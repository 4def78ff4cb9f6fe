"""The forms of many answers, counted, in words for people.

Left out: which answers these are; grades and predictions keep each one's reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from offapi.checks import answer_reading as reading
from offapi.checks.verdict import Answer
from offapi.text.display import plural, share

_ASIDE = {
    reading.THINKING: "began with thinking",
    reading.FENCE: f"stood in {reading.FENCE}",
    reading.CALL: f"stood in the arguments of {reading.CALL}",
}
_ASK = "Ask for the JSON object alone, or send the schema as `offapi label` does."
_ADVICE = {
    reading.FENCE: "Ask for answers without a fence, or set strict=False in the task.",
    reading.CALL: "Ask for answers as text, or set strict=False in the task.",
    reading.EMPTY: "Look at how they were recorded.",
    reading.UNFINISHED: "Raise max_answer_tokens where they are made, or turn thinking off.",
    reading.CALLS: "One answer is one call; the others may belong to an agent's turn.",
    reading.CUT_SHORT: "Raise max_answer_tokens where they are made.",
    reading.LIST_OF_ONE: "Take the object out of its list, or ask for an object.",
    reading.LIST: "The task's answer is an object: put the list into one of its fields.",
    reading.QUOTED: "Decode the answers once more before they are written.",
    reading.OTHER_JSON: "The task's answer is an object: put the value into one of its fields.",
}


@dataclass(frozen=True)
class AnswerForms:
    """How many of `answers` had which form.

    `aside` counts what was set aside from usable answers, `unusable` why the others cannot be
    used, the commonest first.
    """

    answers: int
    aside: Mapping[str, int]
    unusable: Mapping[str, int]

    @property
    def unread(self) -> int:
        """How many answers cannot be used."""
        return sum(self.unusable.values())

    def lines(self) -> list[str]:
        """Return a sentence for each form that was set aside, and one for unusable answers."""
        lines = [
            f"{count:,} of {plural(self.answers, 'answer')} {_ASIDE[form]}, which was set aside."
            for form, count in self.aside.items()
        ]
        return [*lines, f"{self.reason()} {self.advice()}"] if self.unusable else lines

    def reason(self) -> str:
        """Return how many answers cannot be used, and why, the commonest reason first."""
        causes = ", ".join(f"{form} ({count:,})" for form, count in self.unusable.items())
        count = share(self.unread, self.answers, "answer", ("is", "are"))
        return f"{count} not one JSON object: {causes}."

    def advice(self) -> str:
        """Return the next step for the commonest reason."""
        return _ADVICE.get(next(iter(self.unusable)), _ASK)


def count_forms(answers: Iterable[Answer]) -> AnswerForms:
    """Count the forms of `answers`."""
    return count_read((answer.forms, answer.value is not None) for answer in answers)


def count_read(read: Iterable[tuple[Sequence[str], bool]]) -> AnswerForms:
    """Count the forms of answers, each with whether there is an object to use."""
    aside: Counter[str] = Counter()
    unusable: Counter[str] = Counter()
    answers = 0
    for forms, usable in read:
        answers += 1
        if usable:
            aside.update(forms)
        elif forms:
            unusable[forms[-1]] += 1
    return AnswerForms(answers, dict(aside.most_common()), dict(unusable.most_common()))
