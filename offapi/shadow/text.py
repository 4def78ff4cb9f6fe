"""A shadow report in words and tables, for people. Left out: the figures (`report`)."""

from __future__ import annotations

from offapi.shadow.cascade import NeededShare
from offapi.shadow.report import FEWEST_FOR_SHARE, ShadowReport
from offapi.stats.sample_size import documents
from offapi.text.display import plural, share

CURVE_HEAD = ("asked of the frontier", "quality, with 95% interval", "asked at random")
TABLE_HEAD = ("", "student", "frontier", "student - frontier, points", "same answer")


def table(report: ShadowReport) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each field, all of them, and the checks; right by gold where it is known."""
    rows = []
    for name in [*report.agreement, "all fields"]:
        agree = report.agreement.get(name, report.agree)
        row = report.gold.rows.get(name) if report.gold else None
        right = ("", "", "")
        if row is not None:
            right = (row.a.percent(), row.b.percent(), row.difference.points())
        rows.append((name, *right, agree.percent()))
    if report.checks is not None:
        passed = report.checks
        rows.append(
            (
                "passes every check",
                passed.a.percent(),
                passed.b.percent(),
                passed.difference.points(),
                "",
            )
        )
    return rows


def curve(report: ShadowReport) -> list[tuple[str, str, str]]:
    """Return a row for each share of the curve."""
    return [
        (f"{100 * point.asked:.0f}%", point.quality.percent(), f"{100 * point.at_random:.1f}")
        for point in report.points
    ]


def lines(report: ShadowReport) -> list[str]:
    """Return sentences: the verdict, what it rests on, and the shares to ask."""
    said = [f"{plural(report.n, 'request')} with a recorded answer{_left_out(report)}."]
    if report.failed:
        failed = share(report.failed, report.n, "answer", ("is", "are"))
        said.append(f"{failed} missing or unreadable from the student: counted as wrong.")
    return [*said, *_verdict(report), *_shares(report)]


def _left_out(report: ShadowReport) -> str:
    more = f"; {report.unanswered:,} without are left out" if report.unanswered else ""
    n = report.gold.n if report.gold else 0
    return f", {n:,} of them with gold{more}"


def _verdict(report: ShadowReport) -> list[str]:
    loss = f"if a loss of {100 * report.margin:.1f} points is acceptable"
    if report.gold is None:
        return [
            f"Can the student replace the frontier, {loss}? That cannot be said without gold.",
            "What can be said: how often both give the same answer, and what the checks find."
            " Agreement is not accuracy: where they differ either may be right, and where they"
            " agree both may be wrong.",
            "Write the right answer to some 100 of these requests, chosen at random, as gold, and"
            " name that file with --gold.",
        ]
    compared = report.gold.all_fields
    low, high = compared.difference.low, compared.difference.high
    answer = {
        "yes": f"Yes, with 97.5% certainty: it is at most {_worse(low)} worse.",
        "no": f"No: it is at least {_worse(high)} worse.",
        "too few documents": f"Too few documents to say: it may be {_worse(low)} worse.",
    }[report.verdict]
    said = [f"Can the student replace the frontier in all fields, {loss}? {answer}"]
    if report.verdict == "too few documents":
        differing = compared.only_a + compared.only_b
        needed = documents(differing, report.gold.n, report.margin)
        count = plural(needed, "document")
        said.append(f"About {count} with gold would show a difference of that size.")
    return said


def _shares(report: ShadowReport) -> list[str]:
    if report.basis is None:
        return ["The answers have no signals, so no share to ask can be named."]
    if not report.points:
        return [f"The share to ask takes {FEWEST_FOR_SHARE} documents or more."]
    said = [f"The least certain documents are asked first, by the student's {report.basis}."]
    if report.gold is None:
        said.append("Quality is agreement with the frontier here, as if it were always right.")
    if report.for_quality is not None and report.wanted is not None:
        what = f"For a quality of {100 * report.wanted:g}%"
        said.append(f"{what}: {_needed(report.for_quality, '95%')}")
    if report.as_good is not None:
        what = f"For at most {100 * report.margin:.1f} points less than the frontier"
        said.append(f"{what}: {_needed(report.as_good, '97.5%')}")
    return said


def _needed(needed: NeededShare, level: str) -> str:
    if needed.point is not None:
        point = needed.point
        asked = f"ask it for the least certain {100 * point.asked:.0f}%"
        if not point.asked:
            asked = "the student alone will do"
        return f"{asked} (quality {point.quality.percent()}); holds with {level} probability."
    if needed.documents is not None:
        count = plural(needed.documents, "document")
        return f"no share is shown to suffice; about {count} might show one."
    return f"no share suffices on these documents; the highest quality is {100 * needed.best:.1f}%."


def _worse(difference: float) -> str:
    return f"{max(0.0, -100 * difference):.1f} points"
