"""Select traces that are already graded, in memory, and report on them; for recipes.

The same as `offapi grade` does with files. Left out: a person's reviews.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from offapi.data.traces import Trace
from offapi.grading import rows, table
from offapi.grading.keep import Keep
from offapi.grading.report import GradingReport, Sieve, report
from offapi.grading.similarity.contamination import Evaluation, Pair
from offapi.grading.similarity.shingles import common
from offapi.grading.truth import from_gold
from offapi.task import Grade, Task


@dataclass(frozen=True)
class Chosen:
    """Indices of the kept rows in their order, and the report on all rows.

    `eligible` is what the same rule keeps whatever the grades: a pool to draw a control from.
    """

    kept: tuple[int, ...]
    eligible: tuple[int, ...]
    report: GradingReport


def choose(
    graded: Sequence[tuple[Trace, Grade | None]],
    task: Task,
    rule: Keep,
    seed: int,
    *,
    evaluation: Sequence[tuple[str, str]] = (),
    want_precision: float = 0.95,
) -> Chosen:
    """Choose the rows of `graded` that `rule` keeps, none of them near `evaluation`.

    A grade is None where a check failed; `evaluation` holds ids and texts. Gold in the traces shows
    how many of the kept rows are right.
    """
    right = [rows.judge(task, trace, grade, None) for trace, grade in graded]
    columns = table.of(graded, len(task.checks), rule.cap_by, right, fields=tuple(task.match))
    documents = [trace.document for trace, _ in graded]
    texts = [text for _, text in evaluation]
    ignored = np.union1d(common(documents), common(texts))
    pairs = table.add_documents(columns, documents, ignored, Evaluation(texts, ignored))
    cluster = table.clusters(columns, documents.__getitem__, ignored, near=rule.near_duplicates)
    sieve = Sieve.of(columns, cluster, seed)
    summary = report(
        columns,
        sieve,
        tuple(task.checks),
        rule,
        from_gold(columns),
        want_precision=want_precision,
        pairs=[
            Pair(graded[p.row][0].id, evaluation[p.document][0], p.runs, p.numbers) for p in pairs
        ],
        evaluation=len(evaluation) or None,
        fields=tuple(task.match),
    )
    any_grade = replace(rule, threshold=0.0, best=None, top=None)
    kept, eligible = (
        tuple(np.flatnonzero(sieve.kept(each)[0]).tolist()) for each in (rule, any_grade)
    )
    return Chosen(kept, eligible, summary)
