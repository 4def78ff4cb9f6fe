"""What a call of `offapi predict` did: answers, errors by cause, what is accepted, and the cost.

Left out: accuracy, which needs gold (`offapi eval`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from offapi.predict.answering_model import AnsweringModel
from offapi.predict.compose import CUT
from offapi.predict.predict_documents import TOO_LONG
from offapi.predict.prediction import DocumentAnswer
from offapi.text.display import plural, share

NEXT = {
    TOO_LONG: "Split those documents, or use a model with a longer context.",
    CUT: "Raise the task's max_answer_tokens, and write to another --out.",
    "not JSON": "Bind the answers with --constrain schema, or train the model.",
}
SEE = 'The field "error" of their rows has the reason.'


@dataclass
class Tally:
    """What was asked in this call so far."""

    asked: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # without loading the model

    def add(self, answer: DocumentAnswer, seconds: float) -> None:
        """Count one answer, which came after so many seconds."""
        self.seconds = seconds
        self.asked += 1
        self.failed += answer.error is not None
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    def note(self) -> str:
        """Return the note of the progress line."""
        return f"{plural(self.failed, 'error')}" if self.failed else ""


@dataclass(frozen=True)
class PredictTotals:
    """The state of the documents' answers, and the cost of this call."""

    documents: int
    errors: Mapping[str, int]  # cause -> documents
    accepted: int | None  # documents; None: the run is not calibrated
    fields: Mapping[str, int] | None  # accepted values by field
    tally: Tally
    out: Path
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        answers: Iterable[DocumentAnswer],
        names: Sequence[str],
        tally: Tally,
        out: Path,
        answering: AnsweringModel,
    ) -> Self:
        """Count `answers`, those of earlier calls included."""
        documents = 0
        calibrated = False
        errors: Counter[str] = Counter()
        accepted: Counter[str] = Counter()
        for answer in answers:
            documents += 1
            calibrated = calibrated or answer.accepted is not None
            accepted[""] += answer.accepted is True
            if answer.error is not None:
                errors[_cause(answer.error)] += 1
            for name, field in answer.fields.items():
                accepted[name] += field.accepted is True
        whole = accepted.pop("", 0) if calibrated else None
        by_field = {name: accepted[name] for name in names} if calibrated else None
        causes = dict(errors.most_common())
        facts = dict(answering.facts)
        if answering.quantize is not None:
            facts["quantize"] = answering.quantize
        return cls(documents, causes, whole, by_field, tally, out, facts)

    def as_dict(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "answers": str(self.out),
            "documents": self.documents,
            "answered": self.documents - sum(self.errors.values()),
            "errors": dict(self.errors),
            "accepted": self.accepted,
            "accepted_fields": self.fields,
            "asked": self.tally.asked,
            "prompt_tokens": self.tally.prompt_tokens,
            "completion_tokens": self.tally.completion_tokens,
            "seconds": round(self.tally.seconds, 3),
            **self.facts,
        }

    def lines(self) -> list[str]:
        """Return sentences: what is answered and accepted, errors with the next step, the cost."""
        failed = sum(self.errors.values())
        answered = self.documents - failed
        lines = [f"{share(answered, self.documents, 'document', ('is', 'are'))} answered."]
        for cause, errors in self.errors.items():
            lines.append(f"  {plural(errors, 'error')}: {cause}. {NEXT.get(cause, SEE)}")
        if self.accepted is not None and self.fields is not None:
            count = plural(self.documents, "document")
            lines.append(f"All fields accepted: {self.accepted:,} of {count}.")
            each = [f"{name} {count:,}" for name, count in self.fields.items()]
            lines.append(f"Accepted by field: {', '.join(each)}.")
        else:
            lines.append("No confidences: `offapi calibrate` makes them for a run.")
        if self.tally.asked:
            rate = self.tally.asked / max(self.tally.seconds, 1e-9)
            count = plural(self.tally.asked, "document")
            lines.append(f"This run: {count} in {self.tally.seconds:.1f} s, {rate:.2g} a second.")
        return [*lines, f"Answers: {self.out}"]


def _cause(error: str) -> str:
    """Return an error without its details."""
    return error.partition(":")[0].removesuffix(".")
