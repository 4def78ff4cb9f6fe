"""What is watched of every row, each as a number:
checks, missing fields, the document, the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offapi.checks.verdict import parse
from offapi.data.traces import Trace
from offapi.grading.similarity.character_runs import Texts
from offapi.task import Task

Kind = Literal["check", "field", "input", "answer"]
CHARACTERS, LINES, ANSWER = (
    "document length in characters",
    "document length in lines",
    "answer length in characters",
)
DIGITS, NON_ASCII, NOVEL = "share of digits", "share of non-ASCII", "share of new character runs"
LENGTHS = (CHARACTERS, LINES, ANSWER)
HALVED = (
    *LENGTHS,
    NOVEL,
)  # one half of the reference is what they are measured by, the other is compared with


@dataclass(frozen=True)
class Signal:
    """One thing that is watched. Of a check only a fall counts, of all else a move either way."""

    name: str
    kind: Kind
    of: str  # the check or field

    @property
    def falls_only(self) -> bool:
        """Whether a rise is no drift."""
        return self.kind == "check"


def task_signals(task: Task) -> tuple[Signal, ...]:
    """What `task` has to watch, in the order of the columns; checks come first."""
    checks = [Signal(f"check {name}", "check", name) for name in task.checks]
    fields = [Signal(f"{name} missing", "field", name) for name in task.schema["properties"]]
    inputs = [Signal(name, "input", name) for name in (CHARACTERS, LINES, DIGITS, NON_ASCII, NOVEL)]
    return (*checks, *fields, *inputs, Signal(ANSWER, "answer", ANSWER))


def signal_values(
    traces: Sequence[Trace], watching: Sequence[Signal], texts: Texts
) -> NDArray[np.float64]:
    """(N, W) for graded traces: scores, 1 for a missing
    field, lengths in characters or lines, shares.

    Novelty is left at 0, it is not known here. An answer of nothing fails every check.
    """
    objects = [parse(trace.answer).value for trace in traces]
    columns: dict[str, Any] = {
        CHARACTERS: [len(trace.document) for trace in traces],
        LINES: [trace.document.count("\n") + 1 for trace in traces],
        DIGITS: texts.share(texts.digits),
        NON_ASCII: texts.share(texts.non_ascii),
        NOVEL: np.zeros(len(traces)),
        ANSWER: [answer_length(trace) for trace in traces],
    }
    found = np.empty((len(traces), len(watching)))
    for i, one in enumerate(watching):
        if one.kind == "check":
            found[:, i] = [score(trace, one.of) for trace in traces]
        elif one.kind == "field":
            found[:, i] = [value is None or value.get(one.of) is None for value in objects]
        else:
            found[:, i] = columns[one.of]
    return found


def score(trace: Trace, check: str) -> float:
    """What `check` gave a graded trace; 0 where there was no answer to grade."""
    checks: Mapping[str, Any] = (trace.grade or {}).get("checks", {})
    return float(checks[check]["score"]) if checks else 0.0


def answer_length(trace: Trace) -> int:
    """Characters of the answer and of the calls it makes."""
    calls: Any = trace.messages[-1].get("tool_calls") or ()
    return len(trace.answer) + sum(len(call["function"]["arguments"]) for call in calls)
