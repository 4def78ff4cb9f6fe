"""An answered document: every field's value, with its place in the document and how sure it is.

Left out: HTML of a whole report (`offapi.report`); a notebook gets one table a document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from offapi.checks.places import Span
from offapi.confidence.signals import FieldSignals
from offapi.data.documents import KnownAnswer
from offapi.text.display import shorten, terminal_safe

SHOWN = 60  # characters of a value in a notebook


@dataclass(frozen=True)
class FieldAnswer:
    """One field of an answer.

    `evidence` are the characters of the document where the value stands first, None where it is not
    printed. `confidence` is the probability that the value is right, and `accepted` whether it may
    be used unseen under the run's promise; both are None where the run is not calibrated.
    `signals` are what the confidence is computed from, kept only where they were asked for.
    """

    value: Any
    confidence: float | None = None
    evidence: Span | None = None
    accepted: bool | None = None
    signals: FieldSignals | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the object that stands in a row of answers.jsonl."""
        row: dict[str, Any] = {
            "value": self.value,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "evidence": None if self.evidence is None else list(self.evidence),
            "accepted": self.accepted,
        }
        return row if self.signals is None else {**row, "signals": self.signals.as_dict()}


@dataclass(frozen=True)
class DocumentAnswer:
    """The answer to one document; None, with the reason in `error`, where there is none.

    `accepted` says that every field is; None where the run is not calibrated.
    """

    id: str
    answer: KnownAnswer | None
    fields: Mapping[str, FieldAnswer] = field(default_factory=dict)
    accepted: bool | None = None
    error: str | None = None
    # the tokens of its prompt, and of all that was written for it
    prompt_tokens: int = field(default=0, compare=False)
    completion_tokens: int = field(default=0, compare=False)

    def named(self, id: str) -> DocumentAnswer:
        """Return the same answer under another id."""
        return replace(self, id=id)

    def __getitem__(self, name: str) -> FieldAnswer:
        """Return the field `name`, a dotted path."""
        return self.fields[name]

    def as_row(self) -> dict[str, Any]:
        """Return a row of answers.jsonl."""
        fields = {name: each.as_row() for name, each in self.fields.items()}
        return {
            "id": self.id,
            "answer": self.answer,
            "fields": fields,
            "accepted": self.accepted,
            "error": self.error,
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> DocumentAnswer:
        """Return what `as_row` wrote."""
        fields = {name: _field(each) for name, each in row["fields"].items()}
        return cls(row["id"], row["answer"], fields, row["accepted"], row["error"])

    def _repr_html_(self) -> str:
        """Return a table of the fields, for a notebook."""
        if self.error is not None:
            return f"<p><b>{_html(self.id)}</b>: {_html(self.error)}</p>"
        head = "<tr><th>field</th><th>value</th><th>confidence</th><th>accepted</th></tr>"
        rows = "".join(_table_row(name, each) for name, each in self.fields.items())
        return f"<table><caption>{_html(self.id)}</caption>{head}{rows}</table>"


def _field(row: Mapping[str, Any]) -> FieldAnswer:
    evidence = row["evidence"]
    span = None if evidence is None else (int(evidence[0]), int(evidence[1]))
    signals = FieldSignals.of(row["signals"]) if "signals" in row else None
    return FieldAnswer(row["value"], row["confidence"], span, row["accepted"], signals)


def _table_row(name: str, answer: FieldAnswer) -> str:
    sure = "" if answer.confidence is None else f"{answer.confidence:.3f}"
    accepted = {None: "", True: "yes", False: "no"}[answer.accepted]
    value = "" if answer.value is None else str(answer.value)
    cells = (name, shorten(value, SHOWN), sure, accepted)
    return "<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in cells) + "</tr>"


def _html(text: str) -> str:
    return escape(terminal_safe(text))
