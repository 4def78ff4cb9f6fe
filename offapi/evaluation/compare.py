"""Compare two systems' answers to the same documents: which is better, may A replace B?

Rates have Wilson's intervals (from groups where documents share them), differences a paired
bootstrap and an exact McNemar test, next to the smallest difference that so many documents can
show. Left out: sampled answers, and more than two systems at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offapi.errors import DataError
from offapi.evaluation.accuracy import Prediction, list_right
from offapi.stats import bootstrap, paired
from offapi.stats.contrast import Contrast, contrast
from offapi.text.display import plural

LEVEL = 0.05  # two-sided
ALL, MEAN = "all fields", "mean of the fields"

Names = tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """A compared with B in each field, in all fields at once, and in the fields' mean."""

    names: Names
    n: int  # documents
    units: int  # units that were resampled: groups of documents, or documents
    margin: float
    left_out: tuple[int, int]  # documents that only A, only B answered
    fields: dict[str, Contrast]
    all_fields: Contrast
    mean: Contrast
    of_text: bool = False  # fields are the checks of a task that answers with text

    @property
    def rows(self) -> dict[str, Contrast]:
        """Every contrast, by the name it is printed under."""
        return {**self.fields, ALL: self.all_fields, MEAN: self.mean}

    def verdict(self, field: str) -> str:
        """Return which system is better in `field`, or that nothing can be said, and why.

        `field` may also be "all fields" or "mean of the fields".
        """
        row = self.rows[field]
        if row.p_holm < LEVEL and row.difference.mean:
            return f"{self.names[row.difference.mean < 0]} is better"
        documents = plural(self.n, "document")
        if row.detectable >= 1:
            return f"cannot tell (no difference would show in {documents})"
        return (
            f"cannot tell (a difference below {_points(row.detectable)} would not show in"
            f" {documents})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the object `--json` prints."""
        rows = {
            name: {**asdict(row), "verdict": self.verdict(name)} for name, row in self.rows.items()
        }
        all_fields, mean = rows.pop(ALL), rows.pop(MEAN)
        facts = {
            name: getattr(self, name) for name in ("names", "n", "units", "margin", "left_out")
        }
        method = {
            "resamples": bootstrap.RESAMPLES,
            "seed": bootstrap.SEED,
            "correction": "Holm over the fields",
        }
        return {**facts, **method, "fields": rows, "all_fields": all_fields, "mean": mean}

    def table(self) -> list[tuple[str, str, str, str]]:
        """Return rows for people: name, A's rate, B's rate, and A minus B in points."""
        return [
            (self._shown(name), row.a.percent(), row.b.percent(), row.difference.points())
            for name, row in self.rows.items()
        ]

    def lines(self) -> list[str]:
        """Return sentences: each verdict with its evidence, may A replace B, and the method."""
        a, b = self.names
        shown = {self._shown(name): name for name in self.rows}
        verdicts = [
            f"{label}: {self.verdict(name)}. {self._evidence(name)}"
            for label, name in shown.items()
        ]
        replacing = [f"  {label}: {_replaces(self.rows[name])}" for label, name in shown.items()]
        return [
            *verdicts,
            f"Can {a} replace {b}, if a loss of up to {_points(self.margin)} is acceptable?",
            *replacing,
            self._method(),
            *self._left_out(),
        ]

    def _shown(self, name: str) -> str:
        """Return a row's name as people read it: a task that answers with text has no fields."""
        return name.replace("fields", "checks") if self.of_text and name in (ALL, MEAN) else name

    def _evidence(self, name: str) -> str:
        row, (a, b) = self.rows[name], self.names
        right = "is better" if name == MEAN else "alone is right"
        test = "sign-flip test" if name == MEAN or self.units < self.n else "McNemar"
        corrected = (
            f", {_p(row.p_holm)} with Holm's correction over {len(self.fields)}"
            f" {'checks' if self.of_text else 'fields'}"
            if name in self.fields
            else ""
        )
        return (
            f"{a} {right} in {row.only_a} (b), {b} in {row.only_b} (c): exact {test}"
            f" {_p(row.p)}{corrected}."
        )

    def _method(self) -> str:
        groups, rates = "", "Wilson's"
        if self.units < self.n:
            groups = f" in {plural(self.units, 'group')}"
            rates = "Wilson's with the groups' spread and Student's t"
        return (
            f"{plural(self.n, 'document')}{groups}. 95% intervals: for rates {rates}; for"
            " differences a"
            f" paired bootstrap ({bootstrap.RESAMPLES} resamples), no narrower than Tango's score"
            " interval where documents are few."
        )

    def _left_out(self) -> list[str]:
        (only_a, only_b), (a, b) = self.left_out, self.names
        if not only_a + only_b:
            return []
        return [
            f"Left out: {plural(only_a, 'document')} that only {a} answered, {only_b} that only"
            f" {b} answered."
        ]


def compare_answers(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    margin: float = 0.05,
    common: bool = False,
    names: Names = ("A", "B"),
) -> Comparison:
    """Compare `a` with `b`, matched by id; documents of one `group` are resampled together.

    The fields' p values are corrected for their number (Holm). "all fields" is the one headline
    question and is not corrected. `common` leaves out documents that only one system answered.
    Raises DataError when the two do not belong together.
    """
    pairs, left_out = match_answers(a, b, common=common, names=names)
    fields = list(pairs[0][0].correct)
    groups = [one.group if one.group is not None else other.group for one, other in pairs]
    right_a = _right([one for one, _ in pairs], fields)
    right_b = _right([other for _, other in pairs], fields)
    sides = zip(right_a, right_b, strict=True)
    contrasts = [contrast(field_a, field_b, 1, groups, margin) for field_a, field_b in sides]
    corrected = paired.holm([row.p for row in contrasts])
    named = {
        name: replace(row, p_holm=p)
        for name, row, p in zip(fields, contrasts, corrected, strict=True)
    }
    all_fields = contrast(np.all(right_a, axis=0), np.all(right_b, axis=0), 1, groups, margin)
    mean = contrast(np.sum(right_a, axis=0), np.sum(right_b, axis=0), len(fields), groups, margin)
    return Comparison(
        names,
        len(pairs),
        bootstrap.count(groups),
        margin,
        left_out,
        named,
        all_fields,
        mean,
        of_text=pairs[0][0].of_text,
    )


def match_answers(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    common: bool = False,
    names: Names = ("A", "B"),
) -> tuple[list[tuple[Prediction, Prediction]], tuple[int, int]]:
    """Return both answers to each document, in A's order, and how many only A, only B gave.

    Raises DataError where the documents, fields or gold differ.
    """
    by_a, by_b = _by_id(a, names[0]), _by_id(b, names[1])
    only_a = [id for id in by_a if id not in by_b]
    only_b = [id for id in by_b if id not in by_a]
    pairs = [(row, by_b[id]) for id, row in by_a.items() if id in by_b]
    if not pairs or ((only_a or only_b) and not common):
        only = zip(names, (only_a, only_b), strict=True)
        differences = [f"only in {name}: {_some(ids)}" for name, ids in only if ids]
        step = "Compare answers to the same documents" + (
            ", or compare the documents in both with --common." if pairs else "."
        )
        raise DataError(
            f"not the same documents; {'; '.join(differences) or 'there are none'}.", next_step=step
        )
    fields = pairs[0][0].correct
    for pair in pairs:
        _check_pair(pair, list(fields), names)
    return pairs, (len(only_a), len(only_b))


def _check_pair(pair: tuple[Prediction, Prediction], fields: Sequence[str], names: Names) -> None:
    for row, name in zip(pair, names, strict=True):
        if set(row.correct) != set(fields):
            what = f"{name} was scored on {', '.join(row.correct)}, not on {', '.join(fields)}."
            raise DataError(
                what, where=f"document {row.id!r}", next_step="Compare answers of one task."
            )
    for field in fields:
        golds = [row.gold.get(field) if isinstance(row.gold, Mapping) else row.gold for row in pair]
        if golds[0] != golds[1]:
            what = f"the gold {field!r} is not the same: {golds[0]!r} and {golds[1]!r}."
            step = "Score both against the same file."
            raise DataError(what, where=f"document {pair[0].id!r}", next_step=step)


def _right(rows: Sequence[Prediction], fields: Sequence[str]) -> list[NDArray[np.bool_]]:
    """Return for each field which rows have it right."""
    return [np.array(list_right(rows, name), dtype=np.bool_) for name in fields]


def _by_id(rows: Sequence[Prediction], name: str) -> dict[str, Prediction]:
    by_id: dict[str, Prediction] = {}
    for row in rows:
        if row.sample is not None:
            what = f"{name} holds sampled answers, several per document."
            raise DataError(what, next_step="Evaluate it without --temperature to compare.")
        if by_id.setdefault(row.id, row) is not row:
            what = f"{name} answers document {row.id!r} twice."
            raise DataError(what, next_step="Keep one answer per document.")
    return by_id


def _replaces(row: Contrast) -> str:
    if row.difference.low >= 0:
        return "yes, it is not worse."
    worse = f"it may be up to {_points(-row.difference.low)} worse"
    return f"yes, {worse}." if row.non_inferior else f"not shown, {worse}."


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(map(repr, ids[:3])) + more
