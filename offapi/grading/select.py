"""For recipes: rows that are graded already, in memory, chosen by a keep rule and reported on.

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

    `eligible`: what the same rule keeps whatever the grades, a pool to draw a control from.
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
    """Keep rows of `graded` (a grade is None where a
    check failed), none near `evaluation`, ids and texts.

    A trace's own gold, where it has some, tells how many of the kept rows are right.
    """
    right = [rows.judge(task, trace, grade, None) for trace, grade in graded]
    found = table.of(graded, len(task.checks), rule.cap_by, right)
    documents, texts = [trace.document for trace, _ in graded], [text for _, text in evaluation]
    boring = np.union1d(common(documents), common(texts))
    pairs = table.add_documents(found, documents, boring, Evaluation(texts, boring))
    cluster = table.clusters(found, documents.__getitem__, boring, near=rule.near_duplicates)
    sieve = Sieve.of(found, cluster, seed)
    told = report(
        found,
        sieve,
        tuple(task.checks),
        rule,
        from_gold(found),
        want_precision=want_precision,
        pairs=[
            Pair(graded[p.row][0].id, evaluation[p.document][0], p.runs, p.numbers) for p in pairs
        ],
        evaluation=len(evaluation) or None,
    )
    anything = replace(rule, threshold=0.0, best=None, top=None)
    kept, eligible = (
        tuple(np.flatnonzero(sieve.kept(each)[0]).tolist()) for each in (rule, anything)
    )
    return Chosen(kept, eligible, told)
