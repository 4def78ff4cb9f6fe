"""Which road was worth it: every road against the
best one that takes fewer hours, all at once honestly.

The rule. A road's rival is the one that scores best among those that take fewer hours (the base
takes none). Surely better, by Holm and with its interval above 0: "better by x–y points". Surely
worse, or less than the margin better by its interval: "not worth its hours". Else "cannot tell".
Best and rival are chosen by looking, so p values are corrected over all pairs of roads. Left out:
seeds; a road trained again would differ by more than its documents' interval says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from offapi.evaluation.accuracy import Report
from offapi.evaluation.compare import LEVEL, compare_answers
from offapi.stats import paired
from offapi.stats.contrast import Contrast
from offapi.text.display import plural

BASE = "base"


@dataclass(frozen=True)
class Entry:
    """A scored row of the table. `hours` None: a reference, which cannot be taken."""

    name: str
    report: Report
    hours: float | None


@dataclass(frozen=True)
class RankedRow:
    """Differences in "all fields right": this row less the other.

    None where there is nothing to compare with.
    """

    verdict: str
    rival: str | None = None
    to_rival: Contrast | None = None
    to_best: Contrast | None = None
    to_recorded: Contrast | None = None
    replaces: bool | None = None  # the recorded answers: not the margin below them, by the interval


@dataclass(frozen=True)
class Verdicts:
    """The judgement of each row, the best row by the figure, and the row to take."""

    rows: Mapping[str, RankedRow]
    best: str
    take: str
    pairs: int  # that Holm corrected for


def rank_entries(entries: Sequence[Entry], margin: float, recorded: str | None = None) -> Verdicts:
    """Judge `entries`, of which the one called
    `recorded`, if any, holds the frontier's old answers.
    """
    recipes = sorted(
        (one for one in entries if one.hours is not None), key=lambda one: one.hours or 0.0
    )
    pairs = _pairs(recipes, margin)
    best = max(recipes, key=_rate).name  # the first of equals, which takes the fewest hours
    against = next((one for one in entries if one.name == recorded), None)
    to_recorded = _to_recorded(recipes, against, margin) if against else {}
    rows, take = {}, recipes[0].name
    for i, recipe in enumerate(recipes):
        rival = max(recipes[:i], key=_rate).name if i else None
        to_rival = pairs[recipe.name, rival] if rival else None
        if i and _better(pairs[recipe.name, take]):
            take = recipe.name
        old = to_recorded.get(recipe.name)
        rows[recipe.name] = RankedRow(
            (
                verdict_text(to_rival, rival, margin, recipe.report.n)
                if to_rival and rival
                else "where the roads start"
            ),
            rival,
            to_rival,
            pairs.get((recipe.name, best)),
            old,
            old.non_inferior if old else None,
        )
    references = {one.name: RankedRow("reference") for one in entries if one.hours is None}
    return Verdicts({**references, **rows}, best, take, len(pairs) // 2)


def verdict_text(one: Contrast, rival: str, margin: float, n: int) -> str:
    """The rule, in words: `one` is a road less the rival that takes fewer hours."""
    low, high = one.difference.low, one.difference.high
    if _better(one):
        return f"better by {_span(low, high)} points than {rival}"
    if one.p_holm < LEVEL and high < 0:
        return f"not worth its hours: worse by {_span(-high, -low)} points than {rival}"
    if high < margin:
        return f"not worth its hours: at most {100 * max(high, 0):.1f} points better than {rival}"
    documents = plural(n, "document")
    if one.detectable >= 1:
        return f"cannot tell from {rival} (no difference would show in {documents})"
    return (
        f"cannot tell from {rival} (below {100 * one.detectable:.1f} points would not show in"
        f" {documents})"
    )


def _pairs(recipes: Sequence[Entry], margin: float) -> dict[tuple[str, str], Contrast]:
    """Every pair in both directions, with p values by Holm over the pairs."""
    both = list(combinations(recipes, 2))
    made = [(_contrast(a, b, margin), _contrast(b, a, margin)) for a, b in both]
    ps = paired.holm([one.p for one, _ in made])
    found = {}
    for (a, b), (one, other), p in zip(both, made, ps, strict=True):
        found[a.name, b.name] = replace(one, p_holm=p)
        found[b.name, a.name] = replace(other, p_holm=p)
    return found


def _to_recorded(recipes: Sequence[Entry], recorded: Entry, margin: float) -> dict[str, Contrast]:
    """Each road less the recorded answers, by Holm over the roads."""
    made = [_contrast(one, recorded, margin) for one in recipes]
    ps = paired.holm([one.p for one in made])
    return {
        recipe.name: replace(one, p_holm=p)
        for recipe, one, p in zip(recipes, made, ps, strict=True)
    }


def _contrast(a: Entry, b: Entry, margin: float) -> Contrast:
    names = (a.name, b.name)
    return compare_answers(
        a.report.predictions, b.report.predictions, margin=margin, names=names
    ).all_fields


def _better(one: Contrast) -> bool:
    return one.p_holm < LEVEL and one.difference.low > 0


def _rate(one: Entry) -> tuple[float, float]:
    return one.report.all_fields.mean, one.report.mean


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"
