"""Two systems' answers to the same documents: which is
better, may one replace the other, or can nobody tell?

Rates with Wilson's intervals (a bootstrap where documents share groups), differences with a paired
bootstrap, exact McNemar, and what so many documents could show at all. Left out: sampled answers,
and more than two systems at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.errors import DataError
from offapi.evaluation.accuracy import Prediction
from offapi.stats import bootstrap, paired
from offapi.stats.contrast import Contrast, contrast
from offapi.text.display import plural

LEVEL = 0.05  # two-sided
ALL, MEAN = "all fields", "mean of the fields"

Names = tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """A against B in each field, in all fields at once, and in the fields' mean."""

    names: Names
    n: int  # documents
    units: int  # what was resampled: groups of documents, or documents
    margin: float
    left_out: tuple[int, int]  # documents that only A, only B answered
    fields: dict[str, Contrast]
    all_fields: Contrast
    mean: Contrast

    @property
    def rows(self) -> dict[str, Contrast]:
        """Every contrast, by the name it is printed under."""
        return {**self.fields, ALL: self.all_fields, MEAN: self.mean}

    def verdict(self, field: str) -> str:
        """Who is better in `field` (also "all fields", "mean
        of the fields"), or that it cannot be told, and why.
        """
        one = self.rows[field]
        if one.p_holm < LEVEL and one.difference.mean:
            return f"{self.names[one.difference.mean < 0]} is better"
        documents = plural(self.n, "document")
        if one.detectable >= 1:
            return f"cannot tell (no difference would show in {documents})"
        return (
            f"cannot tell (a difference below {_points(one.detectable)} would not show in"
            f" {documents})"
        )

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        told = {
            name: {**asdict(one), "verdict": self.verdict(name)} for name, one in self.rows.items()
        }
        everything, mean = told.pop(ALL), told.pop(MEAN)
        facts = {
            name: getattr(self, name) for name in ("names", "n", "units", "margin", "left_out")
        }
        method = {
            "resamples": bootstrap.RESAMPLES,
            "seed": bootstrap.SEED,
            "correction": "Holm over the fields",
        }
        return {**facts, **method, "fields": told, "all_fields": everything, "mean": mean}

    def table(self) -> list[tuple[str, str, str, str]]:
        """For people: name, A's rate, B's rate, and A less B in points."""
        return [
            (name, one.a.percent(), one.b.percent(), one.difference.points())
            for name, one in self.rows.items()
        ]

    def lines(self) -> list[str]:
        """Sentences for people: each verdict with its evidence,
        whether A may replace B, and how it was reckoned.
        """
        a, b = self.names
        return [
            *(f"{name}: {self.verdict(name)}. {self._evidence(name)}" for name in self.rows),
            f"Can {a} replace {b}, if {_points(self.margin)} less would do?",
            *(f"  {name}: {_replaces(one)}" for name, one in self.rows.items()),
            self._method(),
            *self._left_out(),
        ]

    def _evidence(self, name: str) -> str:
        one, (a, b) = self.rows[name], self.names
        right = "better" if name == MEAN else "alone right"
        test = "sign-flip test" if name == MEAN or self.units < self.n else "McNemar"
        corrected = (
            f", {_p(one.p_holm)} by Holm over {len(self.fields)} fields"
            if name in self.fields
            else ""
        )
        return (
            f"{a} {right} in {one.only_a} (b), {b} in {one.only_b} (c): exact {test}"
            f" {_p(one.p)}{corrected}."
        )

    def _method(self) -> str:
        whole, rates = "", "Wilson's"
        if self.units < self.n:
            whole, rates = (
                f" in {self.units} groups",
                "a bootstrap of groups, no narrower than Wilson's",
            )
        return (
            f"{self.n} documents{whole}. 95% intervals: of rates {rates}; of differences a paired"
            f" bootstrap ({bootstrap.RESAMPLES} resamples), no narrower than Tango's score interval"
            " where documents are few."
        )

    def _left_out(self) -> list[str]:
        (only_a, only_b), (a, b) = self.left_out, self.names
        return (
            [f"Left out: {only_a} documents that only {a} answered, {only_b} only {b}."]
            if only_a + only_b
            else []
        )


def compare_answers(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    margin: float = 0.05,
    common: bool = False,
    names: Names = ("A", "B"),
) -> Comparison:
    """`a` against `b`, matched by id; documents of one `group` are resampled together.

    The fields' p values are corrected for their number (Holm); "all fields" is the one
    headline question and stands alone. DataError when the two do not belong together;
    `common` leaves out documents that only one of them answered.
    """
    pairs, left_out = match_answers(a, b, common=common, names=names)
    fields = list(pairs[0][0].correct)
    groups = [one.group if one.group is not None else other.group for one, other in pairs]
    right_a, right_b = (_right([pair[side] for pair in pairs], fields) for side in (0, 1))
    made = [
        contrast(one, other, 1, groups, margin) for one, other in zip(right_a, right_b, strict=True)
    ]
    holm = paired.holm([one.p for one in made])
    named = {name: replace(one, p_holm=p) for name, one, p in zip(fields, made, holm, strict=True)}
    everything = contrast(np.all(right_a, axis=0), np.all(right_b, axis=0), 1, groups, margin)
    mean = contrast(np.sum(right_a, axis=0), np.sum(right_b, axis=0), len(fields), groups, margin)
    return Comparison(
        names, len(pairs), bootstrap.count(groups), margin, left_out, named, everything, mean
    )


def match_answers(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    common: bool = False,
    names: Names = ("A", "B"),
) -> tuple[list[tuple[Prediction, Prediction]], tuple[int, int]]:
    """Both answers to each document, in A's order, and how many only A, only B answered.

    DataError where the answers are not to the same documents, fields and gold.
    """
    by_a, by_b = _by_id(a, names[0]), _by_id(b, names[1])
    only = [id for id in by_a if id not in by_b], [id for id in by_b if id not in by_a]
    pairs = [(row, by_b[id]) for id, row in by_a.items() if id in by_b]
    if not pairs or (any(only) and not common):
        said = [
            f"only in {name}: {_some(ids)}" for name, ids in zip(names, only, strict=True) if ids
        ]
        step = "Compare answers to the same documents" + (
            ", or those both have with --common." if pairs else "."
        )
        raise DataError(
            f"not the same documents; {'; '.join(said) or 'there are none'}.", next_step=step
        )
    fields = pairs[0][0].correct
    for pair in pairs:
        _check_pair(pair, list(fields), names)
    return pairs, (len(only[0]), len(only[1]))


def _check_pair(pair: tuple[Prediction, Prediction], fields: Sequence[str], names: Names) -> None:
    for row, name in zip(pair, names, strict=True):
        if set(row.correct) != set(fields):
            what = f"{name} was scored on {', '.join(row.correct)}, not on {', '.join(fields)}."
            raise DataError(
                what, where=f"document {row.id!r}", next_step="Compare answers of one task."
            )
    for field in fields:
        golds = [row.gold.get(field) for row in pair]
        if golds[0] != golds[1]:
            what = f"the gold {field!r} is not the same: {golds[0]!r} and {golds[1]!r}."
            step = "Score both against the same file."
            raise DataError(what, where=f"document {pair[0].id!r}", next_step=step)


def _right(rows: Sequence[Prediction], fields: Sequence[str]) -> list[NDArray[np.bool_]]:
    """For each field, which rows have it right."""
    return [np.array([row.correct[name] for row in rows], dtype=np.bool_) for name in fields]


def _by_id(rows: Sequence[Prediction], name: str) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    for row in rows:
        if row.sample is not None:
            what, step = (
                "holds sampled answers, several a document.",
                "Evaluate it without --temperature to compare.",
            )
            raise DataError(f"{name} {what}", next_step=step)
        if found.setdefault(row.id, row) is not row:
            what = f"{name} answers document {row.id!r} twice."
            raise DataError(what, next_step="Keep one answer a document.")
    return found


def _replaces(one: Contrast) -> str:
    if one.difference.low >= 0:
        return "yes, it is not below."
    below = f"it may lie up to {_points(-one.difference.low)} below"
    return f"yes, {below}." if one.non_inferior else f"not shown, {below}."


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(map(repr, ids[:3])) + more
