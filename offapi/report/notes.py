"""What a reader should know before the figures: how
the run ended, whether it was gamed, what it learned.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from offapi.report.run_files import Record, mapping
from offapi.stats.interval import Interval

Kind = Literal["good", "warn", "bad", "info"]


@dataclass(frozen=True)
class ReportNote:
    """A sentence to read first, and how bad it is."""

    kind: Kind
    text: str


def run_notes(record: Record) -> list[ReportNote]:
    """How the run ended, whether it was gamed, what it
    learned, how often its test set was looked at, the network.
    """
    return [
        *_ending(record),
        *_gamed(record),
        *_learned(record),
        *_looked_at(record),
        *_reached(record),
    ]


def _ending(record: Record) -> list[ReportNote]:
    last = record.attempts[-1] if record.attempts else {}
    outcome, done = last.get("outcome"), f"{record.steps:,} steps were logged"
    if outcome == "finished":
        return []
    if outcome == "failed":
        return [
            ReportNote(
                "bad",
                f"The last attempt failed; {done}. See what it printed, then continue it with"
                " --resume.",
            )
        ]
    if outcome == "interrupted":
        return [ReportNote("warn", f"The run was interrupted; {done}. Continue it with --resume.")]
    return [
        ReportNote(
            "warn", f"The run has not ended, or was killed; {done}. These figures are not its last."
        )
    ]


def _gamed(record: Record) -> list[ReportNote]:
    told = record.files.get("hacking")
    if not told:
        return []
    when = f"at step {told.get('step')}: since step {told.get('since')}"
    if told.get("rose") is False:
        lost = "the audit fell on held-out documents, and the reward did not rise"
        return [ReportNote("bad", f"The reward did not stand for what is meant {when} {lost}.")]
    meant = (
        f"{told['part']!r} of the audit fell"
        if told.get("part")
        else "what it stands for, the audit, did not"
    )
    return [
        ReportNote(
            "bad", f"The reward was being gamed {when} it rose on held-out documents while {meant}."
        )
    ]


def _learned(record: Record) -> list[ReportNote]:
    told = record.files.get("learned", {})
    if not isinstance(told.get("reward"), dict):
        return []
    reward = Interval(**told["reward"])
    audit = Interval(**told["audit"]).points() if isinstance(told.get("audit"), dict) else None
    changed = f"reward {reward.points()} points" + (f", audit {audit} points" if audit else "")
    where = f"on {told.get('n')} held-out documents, best at step {told.get('best_step')}"
    if not told.get("learned", reward.low > 0):
        return [ReportNote("warn", f"Nothing can be said to have been learned: {changed} {where}.")]
    chosen = (
        "The adapter was chosen on these documents: score it on others before you rely on the"
        " figure."
    )
    return [ReportNote("good", f"It learned: {changed} {where}. {chosen}")]


def _looked_at(record: Record) -> list[ReportNote]:
    if record.recipe == "grpo":  # which looks at it as it trains, and says so
        return []
    times = Counter(
        one.get("data") for one in record.manifest.get("scored") or () if isinstance(one, dict)
    )
    most = max(times.values(), default=0)
    what = (
        f"A test set has been scored {most} times for this run: pick on validation, report on test"
        " once."
    )
    return [ReportNote("warn", what)] if most > 1 else []


def _reached(record: Record) -> list[ReportNote]:
    seen = [mapping(one, "network") for one in record.attempts]
    refused, opened = (
        sum(len(one.get(kind) or ()) for one in seen) for kind in ("refused", "opened")
    )
    if refused:
        return [
            ReportNote(
                "warn",
                f"{refused} network attempts were refused by the offline guard; see “Network”.",
            )
        ]
    if opened:
        return [ReportNote("info", f"The network was opened for {opened} hosts; see “Network”.")]
    guarded = seen and all(one.get("guard") for one in seen if one)
    return (
        [ReportNote("good", "No network attempt was made while it ran.")]
        if guarded and any(seen)
        else []
    )
