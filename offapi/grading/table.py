"""Graded rows as columns, some 150 bytes a row: all that the report and the keep rules need.

Texts are stored as hashes, so that a million rows fit in memory. Left out: the rows themselves,
which stay in their file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.checks.answer_forms import AnswerForms, count_read
from offapi.checks.answer_reading import FORMS
from offapi.data.traces import Trace
from offapi.files.hashing import hash64
from offapi.grading.keep import NONE, Columns, cap_value
from offapi.grading.similarity.contamination import Evaluation, Near
from offapi.grading.similarity.near_duplicates import Sketches, compare, join
from offapi.grading.similarity.shingles import NOTHING, SKETCH, Hashes, pieces, prints
from offapi.task import Grade

Table = NDArray[np.void]  # (N,) of `kind`
UNKNOWN, WRONG, RIGHT = -1, 0, 1  # of an answer
MOST_FIELDS = 64  # whose values are counted where they are not found


def kind(checks: int) -> np.dtype[np.void]:
    """Return the type of a row that was graded by `checks` checks."""
    return np.dtype(
        [
            ("id", "u8"),
            ("content", "u8"),  # document and answer: what a person reviews
            ("length", "u4"),  # bytes of its line in the graded file
            ("score", "f8"),  # NaN: a check failed
            ("parts", "f4", (checks,)),
            ("has_answer", "?"),
            ("forms", "u4"),  # a bit for each of `answer_reading.FORMS`
            ("not_found", "u8"),  # a bit for each of the task's first 64 fields
            ("near", "?"),  # near an evaluation document
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
    *,
    fields: Sequence[str] = (),
) -> Table:
    """Return rows as a table, without the columns of `add_documents`.

    `right` holds RIGHT, WRONG or UNKNOWN for each row; `fields` are those of the task's `match`.
    """
    table = np.zeros(len(rows), kind(checks))
    if not rows:
        return table
    traces, grades = zip(*rows, strict=True)
    table["id"] = digests([trace.id for trace in traces])
    table["content"] = digests([_answer(row) for row in traces])
    table["score"] = [np.nan if grade is None else grade.score for grade in grades]
    none = [np.nan] * checks
    table["parts"] = [none if grade is None else _part_scores(grade) for grade in grades]
    table["has_answer"], table["right"] = [has_answer(*row) for row in rows], right
    table["forms"] = [_form_bits(grade) for grade in grades]
    bits = {name: 1 << at for at, name in enumerate(fields[:MOST_FIELDS])}
    table["not_found"] = [_not_found_bits(grade, bits) for grade in grades]
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
    """Fill in the columns for near-duplicates; return the rows near an `evaluation` document.

    Call it once for each table.
    """
    start, pairs = 0, []
    for piece in pieces(documents):
        hashes, part = prints(piece, common), table[start : start + len(piece)]
        part["whole"] = hashes.whole
        part["numbers"] = hashes.number_sums
        part["sketch"] = hashes.sketches
        part["content"] ^= hashes.whole
        if evaluation is not None:
            pairs += evaluation.near(hashes, start)
        start += len(piece)
    table["near"][[pair.row for pair in pairs]] = True
    return pairs


def clusters(
    table: Table, text: Callable[[int], str], common: Hashes, *, near: bool = True
) -> NDArray[np.int64]:
    """Return each row's near-duplicate (or only exact copy), as `near_duplicates.join` does.

    `text` returns a row's document.
    """
    sketches = Sketches(
        *(np.ascontiguousarray(table[name]) for name in ("whole", "numbers", "sketch"))
    )
    return join(sketches, (lambda pairs: compare(pairs, text, common)) if near else None)


def columns(table: Table, cluster: NDArray[np.int64]) -> Columns:
    """Return what the keep rules look at."""
    names = ("score", "has_answer", "group", "cap_value")
    score, answers, group, capped = (np.ascontiguousarray(table[name]) for name in names)
    return Columns(score, answers, group, capped, cluster, np.ascontiguousarray(table["near"]))


def has_answer(trace: Trace, grade: Grade | None) -> bool:
    """Return whether the answer can be used: a JSON object, or the end of an agent's chat.

    Also where it was not graded.
    """
    if grade is None or grade.value is not None:
        return True
    return trace.answered and not trace.single_shot


def count_forms(table: Table) -> AnswerForms:
    """Count the forms of the answers that were graded."""
    graded = table[~np.isnan(table["score"])]
    names = {bits: _form_names(bits) for bits in np.unique(graded["forms"]).tolist()}
    pairs = zip(graded["forms"].tolist(), graded["has_answer"].tolist(), strict=True)
    return count_read((names[bits], usable) for bits, usable in pairs)


def _form_bits(grade: Grade | None) -> int:
    return sum(1 << FORMS.index(form) for form in grade.forms) if grade and grade.forms else 0


def _form_names(bits: int) -> tuple[str, ...]:
    return tuple(form for at, form in enumerate(FORMS) if bits >> at & 1)


def count_not_found(table: Table, fields: Sequence[str]) -> dict[str, int]:
    """Return for each field in how many rows a check looked for its value in vain."""
    found = table["not_found"]
    named = enumerate(fields[:MOST_FIELDS])
    return {name: int((found >> np.uint64(at) & np.uint64(1)).sum()) for at, name in named}


def _not_found_bits(grade: Grade | None, bits: Mapping[str, int]) -> int:
    found = 0
    for part in grade.parts.values() if grade else ():
        for name in part.not_found:
            found |= bits.get(name, 0)
    return found


def _part_scores(grade: Grade) -> list[float]:
    return [part.score for part in grade.parts.values()]


def _answer(trace: Trace) -> str:
    """Return the answer, tool calls included."""
    calls: Any = trace.messages[-1].get("tool_calls") or ()
    called = [f"{call['function']['name']}\0{call['function']['arguments']}" for call in calls]
    text = "" if trace.called else trace.answer
    return "\0".join([text, *called]) if called else text


def digests(texts: Sequence[str]) -> Hashes:
    """Return the hashes of `texts`, (N,)."""
    return np.fromiter(map(hash64, texts), np.uint64, len(texts))


def number(value: str | None) -> int:
    """Return a name as a number; NONE for no name."""
    return NONE if value is None else hash64(value) >> 1
