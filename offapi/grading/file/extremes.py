"""The best and worst rows to look at: document, answer and what the checks said.

Text is made safe for a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offapi.data.traces import Trace
from offapi.grading.file.row_reader import Lines
from offapi.grading.report import Sieve
from offapi.text.display import left_out, terminal_safe

EXCERPT_LINES, EXCERPT = 12, 600  # characters


@dataclass(frozen=True)
class Sample:
    """A graded row as a person reads it."""

    id: str
    score: float
    document: str  # its beginning
    answer: str
    reasons: tuple[str, ...]  # a check, its score and its reason each


def extremes(sieve: Sieve, lines: Lines, count: int) -> tuple[list[Sample], list[Sample]]:
    """Return the `count` worst and `count` best rows, each extreme first; none is in both."""
    graded = np.flatnonzero(~np.isnan(sieve.columns.score))
    best_first = graded[np.argsort(sieve.rank[graded])]
    count = min(count, len(best_first) // 2) if len(best_first) > 1 else len(best_first)
    return _samples(lines, best_first[::-1][:count].tolist()), _samples(
        lines, best_first[:count].tolist()
    )


def _samples(lines: Lines, rows: Sequence[int]) -> list[Sample]:
    return [sample(lines.trace(row)) for row in rows]


def sample(trace: Trace) -> Sample:
    """Return a row with its grade."""
    checks = (trace.grade or {})["checks"]
    reasons = tuple(
        f"{name} {part['score']:g}: {terminal_safe(part['reason'])}"
        for name, part in checks.items()
    )
    return Sample(
        trace.id, (trace.grade or {})["score"], excerpt(trace.document), answer(trace), reasons
    )


def excerpt(text: str) -> str:
    """Return the beginning of `text` and how much is left out."""
    shown = "\n".join(terminal_safe(text).splitlines()[:EXCERPT_LINES])[:EXCERPT]
    whole = len(shown) >= len(text.rstrip())
    return shown if whole else f"{shown} {left_out(len(text) - len(shown))}"


def answer(trace: Trace) -> str:
    """Return the answer and the tool calls it makes."""
    calls = trace.messages[-1].get("tool_calls") or ()
    lines = [trace.answer] if trace.answer and not trace.called else []
    lines += [f"{call['function']['name']}({call['function']['arguments']})" for call in calls]
    return terminal_safe("\n".join(lines))
