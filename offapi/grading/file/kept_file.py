"""What is read from a complete graded file: near-duplicates, rows near evaluation, kept rows."""

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
    """Return the rows ready for any keep rule."""
    cluster = table.clusters(graded.table, lines.document, inputs.settings.common)
    return Sieve.of(graded.table, cluster, seed)


def near_evaluation(graded: Graded, lines: Lines, inputs: GradingInputs) -> list[Pair]:
    """Return every row that is near an evaluation document, with that document."""
    rows = np.flatnonzero(graded.table["near"]).tolist()
    evaluation = Evaluation(inputs.settings.evaluation, inputs.settings.common) if rows else None
    pairs = []
    for row in rows:
        trace = lines.trace(row)
        for near in (
            evaluation.near(prints([trace.document], inputs.settings.common)) if evaluation else ()
        ):
            pairs.append(
                Pair(trace.id, inputs.evaluation[near.document][0], near.runs, near.numbers)
            )
    return pairs


def write_kept(path: Path, mask: NDArray[np.bool_], lines: Lines, key: Mapping[str, Any]) -> None:
    """Write the rows of `mask` to `path`, whole or not at all; `key` is what they depend on."""
    rows = np.flatnonzero(mask).tolist()
    with Stage(path, key, {"rows": 0}) as stage:
        for at in range(stage.state["rows"], len(rows), PIECE):
            piece = rows[at : at + PIECE]
            stage.append(lines.joined(piece), {"rows": at + len(piece)})
        stage.finish()
