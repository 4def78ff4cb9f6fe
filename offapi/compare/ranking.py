"""Which arm was worth its hours: each arm against the best one that takes fewer hours.

The rule. An arm's rival is the one that scores best among those that take fewer hours (the base
takes none). Significantly better, by Holm and with its interval above 0: "better by x–y points".
Significantly worse, or better by less than the margin: "not worth its hours". Otherwise "cannot
tell". Best and rival are picked after seeing the scores, so p values are corrected over all pairs.
Left out: seeds; an arm trained again would differ by more than its interval says.
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
    """A scored row of the table. `hours` is None for a reference, which cannot be chosen."""

    name: str
    report: Report
    hours: float | None


@dataclass(frozen=True)
class RankedRow:
    """Differences in the share of documents with all fields right: this row minus the other.

    None where there is nothing to compare with.
    """

    verdict: str
    rival: str | None = None
    to_rival: Contrast | None = None
    to_best: Contrast | None = None
    to_recorded: Contrast | None = None
    replaces: bool | None = None  # whether its interval is less than the margin below the recorded


@dataclass(frozen=True)
class Verdicts:
    """The verdict on each row, the row with the highest score, and the row to take."""

    rows: Mapping[str, RankedRow]
    best: str
    take: str
    pairs: int  # pairs that Holm corrected for


def rank_entries(entries: Sequence[Entry], margin: float, recorded: str | None = None) -> Verdicts:
    """Rank `entries`. The one called `recorded`, if any, holds the frontier's old answers."""
    arms = sorted(
        (entry for entry in entries if entry.hours is not None), key=lambda entry: entry.hours or 0
    )
    pairs = _pairs(arms, margin)
    best = max(arms, key=_rate).name  # the first of equals, which takes the fewest hours
    against = next((entry for entry in entries if entry.name == recorded), None)
    to_recorded = _to_recorded(arms, against, margin) if against else {}
    rows, take = {}, arms[0].name
    for i, arm in enumerate(arms):
        rival = max(arms[:i], key=_rate).name if i else None
        to_rival = pairs[arm.name, rival] if rival else None
        if i and _better(pairs[arm.name, take]):
            take = arm.name
        old = to_recorded.get(arm.name)
        rows[arm.name] = RankedRow(
            (
                verdict_text(to_rival, rival, margin, arm.report.n)
                if to_rival and rival
                else "the starting point"
            ),
            rival,
            to_rival,
            pairs.get((arm.name, best)),
            old,
            old.non_inferior if old else None,
        )
    references = {entry.name: RankedRow("reference") for entry in entries if entry.hours is None}
    return Verdicts({**references, **rows}, best, take, len(pairs) // 2)


def verdict_text(contrast: Contrast, rival: str, margin: float, n: int) -> str:
    """Return the rule's verdict on an arm; `contrast` is the arm minus its rival."""
    low, high = contrast.difference.low, contrast.difference.high
    if _better(contrast):
        return f"better by {_span(low, high)} points than {rival}"
    if contrast.p_holm < LEVEL and high < 0:
        return f"not worth its hours: worse by {_span(-high, -low)} points than {rival}"
    if high < margin:
        return f"not worth its hours: at most {100 * max(high, 0):.1f} points better than {rival}"
    documents = plural(n, "document")
    if contrast.detectable >= 1:
        return f"cannot tell apart from {rival} (no difference would show in {documents})"
    return (
        f"cannot tell apart from {rival} (a difference below {100 * contrast.detectable:.1f} points"
        f" would not show in {documents})"
    )


def _pairs(arms: Sequence[Entry], margin: float) -> dict[tuple[str, str], Contrast]:
    """Contrast every pair in both directions, with p values by Holm over the pairs."""
    couples = list(combinations(arms, 2))
    contrasts = [(_contrast(a, b, margin), _contrast(b, a, margin)) for a, b in couples]
    ps = paired.holm([forth.p for forth, _ in contrasts])
    pairs = {}
    for (a, b), (forth, back), p in zip(couples, contrasts, ps, strict=True):
        pairs[a.name, b.name] = replace(forth, p_holm=p)
        pairs[b.name, a.name] = replace(back, p_holm=p)
    return pairs


def _to_recorded(arms: Sequence[Entry], recorded: Entry, margin: float) -> dict[str, Contrast]:
    """Contrast each arm with the recorded answers, by Holm over the arms."""
    contrasts = [_contrast(arm, recorded, margin) for arm in arms]
    ps = paired.holm([contrast.p for contrast in contrasts])
    return {
        arm.name: replace(contrast, p_holm=p)
        for arm, contrast, p in zip(arms, contrasts, ps, strict=True)
    }


def _contrast(a: Entry, b: Entry, margin: float) -> Contrast:
    names = (a.name, b.name)
    return compare_answers(
        a.report.predictions, b.report.predictions, margin=margin, names=names
    ).all_fields


def _better(contrast: Contrast) -> bool:
    return contrast.p_holm < LEVEL and contrast.difference.low > 0


def _rate(entry: Entry) -> tuple[float, float]:
    return entry.report.all_fields.mean, entry.report.mean


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"
