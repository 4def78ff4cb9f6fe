"""Graded rows as columns, 150 bytes and a few a
row: all that the report and the keep rules look at.

Texts are held as hashes, so that a million rows fit in memory. Left out: the rows themselves,
which stay in their file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.data.traces import Trace
from offapi.files.hashing import hash64
from offapi.grading.keep import NONE, Columns, cap_value
from offapi.grading.similarity.contamination import Evaluation, Near
from offapi.grading.similarity.near_duplicates import Sketches, compare, join
from offapi.grading.similarity.shingles import NOTHING, SKETCH, Hashes, pieces, prints
from offapi.task import Grade

Table = NDArray[np.void]  # (N,) of `kind`
UNKNOWN, WRONG, RIGHT = -1, 0, 1  # of an answer


def kind(checks: int) -> np.dtype[np.void]:
    """The type of a row that was graded by so many checks."""
    return np.dtype(
        [
            ("id", "u8"),
            ("content", "u8"),  # document and answer: what a person says yes or no to
            ("length", "u4"),  # bytes of its line in the graded file
            ("score", "f8"),  # NaN: a check failed to judge it
            ("parts", "f4", (checks,)),
            ("has_answer", "?"),
            ("near", "?"),  # an evaluation document
            ("right", "i1"),  # whether all fields equal gold
            ("group", "i8"),
            ("cap_value", "i8"),
            ("whole", "u8"),
            ("numbers", "u8"),
            ("sketch", "u2", (SKETCH,)),
        ]
    )


def of(
    rows: Sequence[tuple[Trace, Grade | None]],
    checks: int,
    cap_by: str | None,
    right: Sequence[int],
) -> Table:
    """Rows as a table, without what `add_documents`
    adds; `right` says of each whether its answer is.
    """
    table = np.zeros(len(rows), kind(checks))
    if not rows:
        return table
    traces, grades = zip(*rows, strict=True)
    table["id"], table["content"] = (
        digests([trace.id for trace in traces]),
        digests([_answer(row) for row in traces]),
    )
    table["score"] = [np.nan if grade is None else grade.score for grade in grades]
    none = [np.nan] * checks
    table["parts"] = [
        none if grade is None else [part.score for part in grade.parts.values()] for grade in grades
    ]
    table["has_answer"], table["right"] = [has_answer(*row) for row in rows], right
    table["group"] = [number(trace.group) for trace in traces]
    answers = (grade and grade.value for grade in grades)
    capped = [
        cap_value(trace.group, answer, cap_by)
        for trace, answer in zip(traces, answers, strict=True)
    ]
    table["cap_value"] = [number(value) for value in capped]
    return table


def add_documents(
    table: Table,
    documents: Sequence[str],
    common: Hashes = NOTHING,
    evaluation: Evaluation | None = None,
) -> list[Near]:
    """Add what near-duplicates are found by, and return the rows near one of `evaluation`.

    To be called once.
    """
    start, pairs = 0, []
    for some in pieces(documents):
        found, part = prints(some, common), table[start : start + len(some)]
        part["whole"], part["numbers"], part["sketch"] = (
            found.whole,
            found.number_sums,
            found.sketches,
        )
        part["content"] ^= found.whole
        if evaluation is not None:
            pairs += evaluation.near(found, start)
        start += len(some)
    table["near"][[pair.row for pair in pairs]] = True
    return pairs


def clusters(
    table: Table, text: Callable[[int], str], common: Hashes, *, near: bool = True
) -> NDArray[np.int64]:
    """Near-duplicates among the rows, or only exact ones, as
    `duplicates.join` gives them; `text` gives a document.
    """
    sketches = Sketches(
        *(np.ascontiguousarray(table[name]) for name in ("whole", "numbers", "sketch"))
    )
    return join(sketches, (lambda pairs: compare(pairs, text, common)) if near else None)


def columns(table: Table, cluster: NDArray[np.int64]) -> Columns:
    """What the keep rules look at."""
    names = ("score", "has_answer", "group", "cap_value")
    score, answers, group, capped = (np.ascontiguousarray(table[name]) for name in names)
    return Columns(score, answers, group, capped, cluster, np.ascontiguousarray(table["near"]))


def has_answer(trace: Trace, grade: Grade | None) -> bool:
    """Whether the answer is one JSON object, or ends an agent's chat, or was not graded."""
    if grade is None or grade.value is not None:
        return True
    return trace.answered and not trace.single_shot


def _answer(trace: Trace) -> str:
    """The answer, calls included."""
    calls: Any = trace.messages[-1].get("tool_calls") or ()
    made = [f"{call['function']['name']}\0{call['function']['arguments']}" for call in calls]
    return "\0".join([trace.answer, *made]) if made else trace.answer


def digests(texts: Sequence[str]) -> Hashes:
    """The hashes of `texts`, (N,)."""
    return np.fromiter(map(hash64, texts), np.uint64, len(texts))


def number(value: str | None) -> int:
    """A name as a number, NONE for none."""
    return NONE if value is None else hash64(value) >> 1
