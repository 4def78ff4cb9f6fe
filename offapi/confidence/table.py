"""A calibration as a person reads it: a table of fields, and sentences on what is promised.

Left out: charts (`offapi.report`).
"""

from __future__ import annotations

from offapi.confidence.promise import WHOLE, AcceptedFrom, Promise
from offapi.confidence.quality import ConfidenceQuality, Ranking
from offapi.stats.interval import wilson
from offapi.text.display import plural

HEAD = ("field", "right", "accepted", "wrong of these", "AUROC", "AUROC, log-probability alone")


def promise_rows(promise: Promise) -> list[tuple[str, ...]]:
    """Return a row for each field's values, its nulls where it has some, and whole documents."""
    rows = []
    for name, known in promise.fields.items():
        rows.append(_row(name, known.values, promise.quality[name]))
        if known.nulls.documents:
            rows.append((f"{name}, null", "", *_accepted(known.nulls), "", ""))
    return [*rows, _row(WHOLE, promise.whole, promise.quality[WHOLE])]


def promise_lines(promise: Promise) -> list[str]:
    """Return what is promised, and for what nothing is promised, why and what would help."""
    everything = [(name, known.values) for name, known in promise.fields.items()]
    everything += [(f"{name}, null", known.nulls) for name, known in promise.fields.items()]
    everything.append((WHOLE, promise.whole))
    lines = []
    if any(each.at is not None for _, each in everything):
        lines.append(
            f"Promise: of the accepted answers of each at most {promise.error:.1%} are wrong, with"
            f" probability {1 - promise.delta:.0%} for all of them at once, as long as documents"
            f" stay like these."
        )
    for name, each in everything:
        if each.at is None and each.documents:
            lines.append(f"{name}: nothing is accepted: {each.why_not}.")
            lines += _surest_wrong(name, each, promise.quality.get(name))
    return lines


def _row(name: str, each: AcceptedFrom, quality: ConfidenceQuality) -> tuple[str, ...]:
    areas = (_area(quality.model), _area(quality.logprob))
    return (name, quality.right.percent(), *_accepted(each), *areas)


def _accepted(each: AcceptedFrom) -> tuple[str, str]:
    if each.at is None:
        return "none", ""
    return wilson(each.accepted, each.documents).percent(), f"{each.wrong} of {each.accepted:,}"


def _area(ranking: Ranking) -> str:
    area = ranking.auroc
    return "—" if area is None else f"{area.mean:.3f} [{area.low:.3f}–{area.high:.3f}]"


def _surest_wrong(name: str, each: AcceptedFrom, quality: ConfidenceQuality | None) -> list[str]:
    """Return which wrong answers to look at, where the wrong ones are among the surest."""
    if quality is None or "ambiguous" not in each.why_not:
        return []
    ids = ", ".join(quality.surest_wrong)
    return [f"  The surest wrong {plural(len(quality.surest_wrong), 'answer')} of {name}: {ids}."]
