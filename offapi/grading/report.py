"""What a graded set of rows is worth, as values to print, to store and to give as JSON.

Left out: the samples, which are read from the file when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.checks.answer_forms import AnswerForms
from offapi.errors import DataError
from offapi.grading import advice, keep
from offapi.grading.grader_accuracy import Agreement, agree, rate
from offapi.grading.keep import Columns, Keep
from offapi.grading.similarity.contamination import Pair
from offapi.grading.table import Table, columns, count_forms, count_not_found
from offapi.grading.truth import Truth
from offapi.stats.interval import Interval
from offapi.text.display import plural, share

BINS = 10  # of the histogram; rows with grade 1 have a bin of their own
THRESHOLDS, TOPS = (0.5, 0.8, 0.9, 1.0), (0.1, 0.25, 0.5)

NEARLY_ALL = 0.9  # of the graded rows, where a field is named
FEW = 5  # graded rows that say nothing

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Check:
    """How one check graded the rows that could be graded."""

    name: str
    passed: Interval  # share of rows to which it gave its full score
    mean: float


@dataclass(frozen=True)
class Rule:
    """What a keep rule would keep, with and without the cap, and how much of it is right."""

    rule: str
    kept: int
    capped: int | None
    right: Interval | None


@dataclass(frozen=True)
class GradingReport:
    """Everything about the rows, and what the requested keep rule does with them."""

    rows: int
    failed: int  # a check failed on them
    unanswered: int  # no answer was recorded
    forms: AnswerForms  # of the answers that were graded
    histogram: tuple[int, ...]  # rows by score, in tenths, then those with 1
    checks: tuple[Check, ...]
    exact_duplicates: int  # rows after the first with the same words
    near_duplicates: int  # rows after the first with nearly the same words, without exact copies
    without_group: int
    near_evaluation: tuple[Pair, ...]
    evaluation: int | None  # documents that rows were compared with; None for none
    rules: tuple[Rule, ...]
    keep: Keep
    kept: int
    dropped: Mapping[str, int]
    ceiling: Interval | None  # share of the kept rows that are right, where that is known
    known: int  # kept rows whose truth is known
    not_found: Mapping[str, int]  # by field: rows in which its value is not in the document
    agreement: Agreement | None

    def as_dict(self) -> dict[str, Any]:
        """Return the object for --json and grading.json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return sentences: forms, rows without a group, ceiling, size, the grader's accuracy."""
        ceiling = advice.ceiling(self.ceiling, self.known, self.kept)
        enough = advice.enough(self.kept, self.evaluation)
        agreement = self.agreement.lines() if self.agreement else []
        unread = self._never_found()
        return [*self.forms.lines(), *unread, *self._ungrouped(), *ceiling, *enough, *agreement]

    def nothing_kept(self, rows: str, threshold_step: str) -> DataError:
        """Return the error where the rule keeps none of `rows`, with the commonest reason first."""
        reasons = sorted(self.dropped.items(), key=lambda item: -item[1])
        what = f"none of {self.rows:,} {rows} is kept"
        if not reasons:
            return DataError(f"{what}: there are none.", next_step="Name a file with rows.")
        reason, count = reasons[0]
        if reason == keep.NO_OBJECT:
            return DataError(f"{what}: {self.forms.reason()}", next_step=self.forms.advice())
        if reason == keep.LOW:
            worst = min(self.checks, key=lambda check: check.passed.mean)
            passing = f"the check {worst.name!r} passes {worst.passed.mean:.0%} of them"
            never = self._never_found()
            what = " ".join((f"{what}: {count:,} {reason}; {passing}.", *never))
            return DataError(what, next_step=threshold_step)
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        return DataError(f"{what}: {listed}.", next_step=_STEPS.get(reason, threshold_step))

    def _never_found(self) -> list[str]:
        """Name each field that is not found in nearly every graded row."""
        graded = self.rows - self.failed - self.unanswered
        if graded < FEW:
            return []
        return [
            f"The value of {name!r} is not found in the document in {count:,} of"
            f" {plural(graded, 'row')}."
            " If the documents print it, in_source does not read its form:"
            " docs/tasks-and-checks.md says which it reads."
            for name, count in self.not_found.items()
            if count >= NEARLY_ALL * graded
        ]

    def _ungrouped(self) -> list[str]:
        """Return how many rows a condition on groups leaves alone."""
        if not (self.keep.by_group and self.without_group):
            return []
        sentence = (
            f"{share(self.without_group, self.rows, 'row', ('has', 'have'))} no group, and"
            f" {self.keep.by_group} drops none of them"
        )
        any_grade = self.keep.lowest is None and self.keep.top is None
        return [f"{sentence}{', whatever their grade: add a threshold' if any_grade else ''}."]


_STEPS = {
    keep.REFUSED: "Train on other documents than those of `val`, or score on others.",
    keep.NO_ANSWER: "Record the answers, or have them made.",
    keep.UNGRADED: "Fix the check: an answer it cannot grade should score 0 with a reason.",
}


@dataclass(frozen=True)
class Sieve:
    """Rows ready for any keep rule."""

    columns: Columns
    rank: NDArray[np.int64]

    @classmethod
    def of(cls, table: Table, cluster: NDArray[np.int64], seed: int) -> Sieve:
        """Prepare a table; `cluster` numbers the near-duplicates, as `table.clusters` does."""
        rows = columns(table, cluster)
        return cls(rows, keep.ranking(rows.score, seed))

    def kept(self, rule: Keep) -> tuple[Mask, dict[str, int]]:
        """Return what `keep.choose` returns for `rule`."""
        return keep.choose(self.columns, rule, self.rank)


def report(
    table: Table,
    sieve: Sieve,
    checks: Sequence[str],
    rule: Keep,
    truth: Truth | None,
    *,
    want_precision: float,
    pairs: Sequence[Pair] = (),
    evaluation: int | None = None,
    fields: Sequence[str] = (),
) -> GradingReport:
    """Return the report on `table` and on the rows of it that `rule` keeps.

    `fields` are those of the task's `match`, in their order.
    """
    score = table["score"]
    graded = ~np.isnan(score)
    mask, dropped = sieve.kept(rule)
    whole = len(table) - len(np.unique(table["whole"]))
    cluster = sieve.columns.cluster
    return GradingReport(
        rows=len(table),
        failed=int((~graded & table["has_answer"]).sum()),
        unanswered=int((~graded & ~table["has_answer"]).sum()),
        forms=count_forms(table),
        histogram=_histogram(score[graded]),
        checks=_summarize_checks(checks, table["parts"], graded),
        exact_duplicates=whole,
        near_duplicates=len(table) - len(np.unique(cluster)) - whole,
        without_group=int((table["group"] == keep.NONE).sum()),
        near_evaluation=tuple(pairs),
        evaluation=evaluation,
        rules=tuple(
            _rule(sieve, each, name, rule, truth) for name, each in rules(rule, sieve.columns)
        ),
        keep=rule,
        kept=int(mask.sum()),
        dropped=dropped,
        ceiling=truth.rate(mask) if truth else None,
        known=int((truth.known & mask).sum()) if truth else 0,
        not_found=count_not_found(table, fields),
        agreement=_agreement(score, truth, want_precision) if truth else None,
    )


def rules(asked: Keep, rows: Columns) -> list[tuple[str, Keep]]:
    """Return the rules to compare, with their names."""
    named = [
        ("grade 1" if each == 1 else f"grade {each:g} or more", Keep(threshold=each))
        for each in THRESHOLDS
    ]
    if (rows.group != keep.NONE).any():
        named.append(("best of each group", Keep(best=1)))
    named += [(f"top {each:.0%}", Keep(top=each)) for each in TOPS]
    return [(name, replace(each, near_duplicates=asked.near_duplicates)) for name, each in named]


def _rule(sieve: Sieve, rule: Keep, name: str, asked: Keep, truth: Truth | None) -> Rule:
    mask, _ = sieve.kept(rule)
    capped = (
        None
        if asked.cap is None
        else int(sieve.kept(replace(rule, cap=asked.cap, cap_by=asked.cap_by))[0].sum())
    )
    return Rule(name, int(mask.sum()), capped, truth.rate(mask) if truth else None)


def _summarize_checks(
    names: Sequence[str], parts: NDArray[np.float32], graded: NDArray[np.bool_]
) -> tuple[Check, ...]:
    if not graded.any():
        return ()
    return tuple(_check(name, parts[graded, i]) for i, name in enumerate(names))


def _check(name: str, parts: NDArray[np.float32]) -> Check:
    passed = rate(parts >= 1 - 1e-6)
    assert passed is not None
    return Check(name, passed, float(parts.mean(dtype=np.float64)))


def _histogram(score: NDArray[np.float64]) -> tuple[int, ...]:
    full = score >= 1 - keep.SLACK
    tenths = np.minimum((score[~full] * BINS + 1e-6).astype(np.int64), BINS - 1)
    return (*np.bincount(tenths, minlength=BINS).tolist(), int(full.sum()))


def _agreement(score: NDArray[np.float64], truth: Truth, wanted: float) -> Agreement:
    known = truth.known & ~np.isnan(score)
    return agree(
        score[known], truth.right[known], wanted, truth.source, truth.weight[known], truth.unseen
    )
