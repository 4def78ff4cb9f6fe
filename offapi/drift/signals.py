"""The signals of a row, each a number: checks, missing fields, the document, the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offapi.checks.answer_reading import read_trace
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
# one half of the reference makes their scale, and fresh rows are compared with the other
HALVED = (*LENGTHS, NOVEL)


@dataclass(frozen=True)
class Signal:
    """One signal. For a check only a fall counts; for all others, a change in either direction."""

    name: str
    kind: Kind
    of: str  # the check or field

    @property
    def falls_only(self) -> bool:
        """Whether only a fall is drift."""
        return self.kind == "check"


def task_signals(task: Task) -> tuple[Signal, ...]:
    """Return the signals of `task`, in the order of the columns; checks come first."""
    checks = [Signal(f"check {name}", "check", name) for name in task.checks]
    names = task.schema["properties"] if task.schema is not None else ()
    fields = [Signal(f"{name} missing", "field", name) for name in names]
    inputs = [Signal(name, "input", name) for name in (CHARACTERS, LINES, DIGITS, NON_ASCII, NOVEL)]
    return (*checks, *fields, *inputs, Signal(ANSWER, "answer", ANSWER))


def signal_values(
    traces: Sequence[Trace], watching: Sequence[Signal], texts: Texts
) -> NDArray[np.float64]:
    """Return the values of graded traces, (N, W): scores, missing fields (1), lengths, shares.

    Novelty stays 0, since it is not known here. An empty answer fails every check.
    """
    objects = [read_trace(trace).value for trace in traces]
    characters = [len(trace.document) for trace in traces]
    lines = [trace.document.count("\n") + 1 for trace in traces]
    columns: dict[str, Any] = {
        CHARACTERS: characters,
        LINES: lines,
        DIGITS: texts.share(texts.digits),
        NON_ASCII: texts.share(texts.non_ascii),
        NOVEL: np.zeros(len(traces)),
        ANSWER: [answer_length(trace) for trace in traces],
    }
    values = np.empty((len(traces), len(watching)))
    for i, signal in enumerate(watching):
        if signal.kind == "check":
            values[:, i] = [score(trace, signal.of) for trace in traces]
        elif signal.kind == "field":
            values[:, i] = [value is None or value.get(signal.of) is None for value in objects]
        else:
            values[:, i] = columns[signal.of]
    return values


def score(trace: Trace, check: str) -> float:
    """Return the score that `check` gave a graded trace; 0 if there was no answer to grade."""
    checks: Mapping[str, Any] = (trace.grade or {}).get("checks", {})
    return float(checks[check]["score"]) if checks else 0.0


def answer_length(trace: Trace) -> int:
    """Count the characters of the answer and of its tool calls."""
    calls: Any = trace.messages[-1].get("tool_calls") or ()
    text = 0 if trace.called else len(trace.answer)
    return text + sum(len(call["function"]["arguments"]) for call in calls)
