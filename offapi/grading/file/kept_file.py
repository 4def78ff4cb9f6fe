"""What is found in a graded file once it is whole:
near-duplicates, pairs near evaluation documents, kept rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.files.staged import Stage
from offapi.grading import table
from offapi.grading.file.grade_file import Graded
from offapi.grading.file.inputs import GradingInputs
from offapi.grading.file.row_reader import Lines
from offapi.grading.report import Sieve
from offapi.grading.similarity.contamination import Evaluation, Pair
from offapi.grading.similarity.shingles import prints

PIECE = 1000  # rows written at a time


def sieve(graded: Graded, lines: Lines, inputs: GradingInputs, seed: int) -> Sieve:
    """The rows ready for any keep rule."""
    cluster = table.clusters(graded.table, lines.document, inputs.settings.common)
    return Sieve.of(graded.table, cluster, seed)


def near_evaluation(graded: Graded, lines: Lines, inputs: GradingInputs) -> list[Pair]:
    """Every row that is near an evaluation document, with that document."""
    rows = np.flatnonzero(graded.table["near"]).tolist()
    evaluation = Evaluation(inputs.settings.evaluation, inputs.settings.common) if rows else None
    found = []
    for row in rows:
        trace = lines.trace(row)
        for near in (
            evaluation.near(prints([trace.document], inputs.settings.common)) if evaluation else ()
        ):
            found.append(
                Pair(trace.id, inputs.evaluation[near.document][0], near.runs, near.numbers)
            )
    return found


def write_kept(path: Path, mask: NDArray[np.bool_], lines: Lines, key: Mapping[str, Any]) -> None:
    """The rows of `mask` in `path`, whole or not at all; `key` is what they depend on."""
    rows = np.flatnonzero(mask).tolist()
    with Stage(path, key, {"rows": 0}) as stage:
        for at in range(stage.state["rows"], len(rows), PIECE):
            some = rows[at : at + PIECE]
            stage.append(lines.joined(some), {"rows": at + len(some)})
        stage.finish()
