"""What to know before the figures: how the run ended, reward hacking, what it learned."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from offapi.report.render.table import text
from offapi.report.run_files import Object, Record, mapping, number
from offapi.stats.interval import Interval
from offapi.text.display import plural

Kind = Literal["good", "warn", "bad", "info"]


@dataclass(frozen=True)
class ReportNote:
    """A sentence to read first, and its severity."""

    kind: Kind
    text: str


def run_notes(record: Record) -> list[ReportNote]:
    """Return how the run ended, reward hacking, what it learned, test set scorings, the network."""
    return [
        *_ending(record),
        *_gamed(record),
        *_learned(record),
        *_looked_at(record),
        *_reached(record),
    ]


def _ending(record: Record) -> list[ReportNote]:
    last = record.attempts[-1] if record.attempts else {}
    outcome, done = last.get("outcome"), f"{plural(record.steps, 'step was', 'steps were')} logged"
    if outcome == "finished":
        return []
    if outcome == "failed":
        return [ReportNote("bad", _failed(mapping(last, "error"), done))]
    if outcome == "interrupted":
        return [ReportNote("warn", f"The run was interrupted; {done}. Resume it with --resume.")]
    return [
        ReportNote(
            "warn", f"The run has not ended, or was killed; {done}. These figures are not final."
        )
    ]


def _failed(error: Object, done: str) -> str:
    """Return why the last attempt failed and what that error advises; old runs do not say why."""
    if not error.get("what"):
        return f"The last attempt failed; {done}. Its reason was not recorded."
    by = "A gate stopped the last attempt" if error.get("code") == "gate" else "It failed"
    where = f" ({text(error['where'])})" if error.get("where") else ""
    step = text(error.get("next") or "See console.log in its folder.")
    return f"{by}; {done}. The reason: {text(error['what'])}{where} {step}"


def _gamed(record: Record) -> list[ReportNote]:
    hacking = record.files.get("hacking")
    if not hacking:
        return []
    when = f"at step {hacking.get('step')}: since step {hacking.get('since')}"
    if hacking.get("rose") is False:
        lost = "the audit fell on held-out documents and the reward did not rise"
        return [ReportNote("bad", f"The reward misled training {when}, {lost}.")]
    audit = f"{hacking['part']!r} of the audit fell" if hacking.get("part") else "the audit did not"
    what = f"The reward was being gamed {when}, it rose on held-out documents while {audit}."
    return [ReportNote("bad", what)]


def _learned(record: Record) -> list[ReportNote]:
    learned = record.files.get("learned", {})
    if not isinstance(learned.get("reward"), dict):
        return []
    reward = Interval(**learned["reward"])
    changed = f"reward {reward.points()} points"
    if isinstance(learned.get("audit"), dict):
        changed += f", audit {Interval(**learned['audit']).points()} points"
    documents, best = int(number(learned.get("n")) or 0), f"best at step {learned.get('best_step')}"
    if not learned.get("learned", reward.low > 0):
        what = (
            f"No significant improvement on {plural(documents, 'held-out document')}:"
            f" {changed}, {best}."
        )
        return [ReportNote("warn", what)]
    chosen = (
        "The adapter was chosen on these documents; score it on others before you rely on the"
        " figure."
    )
    what = f"It improved on {plural(documents, 'held-out document')}: {changed}, {best}. {chosen}"
    return [ReportNote("good", what)]


def _looked_at(record: Record) -> list[ReportNote]:
    if record.recipe == "grpo":  # it scores its held-out documents as it trains, and reports it
        return []
    scorings = record.manifest.get("scored") or ()
    times = Counter(scoring.get("data") for scoring in scorings if isinstance(scoring, dict))
    most = max(times.values(), default=0)
    what = (
        f"A test set was scored {most} times for this run. Choose on validation data, and score the"
        " test set once."
    )
    return [ReportNote("warn", what)] if most > 1 else []


def _reached(record: Record) -> list[ReportNote]:
    seen = [mapping(attempt, "network") for attempt in record.attempts]
    refused = sum(len(network.get("refused") or ()) for network in seen)
    opened = sum(len(network.get("opened") or ()) for network in seen)
    started = [one for network in seen for one in network.get("started") or ()]
    unexpected = sorted({text(one.get("program")) for one in started if not one.get("expected")})
    if refused:
        return [
            ReportNote(
                "warn",
                f"The offline guard refused {plural(refused, 'network attempt')}; see “Network”.",
            )
        ]
    if unexpected:
        what = "Programs were started, which the offline guard cannot follow"
        return [ReportNote("warn", f"{what}: {', '.join(unexpected)}; see “Network”.")]
    if opened:
        return [
            ReportNote(
                "info", f"The network was opened for {plural(opened, 'host')}; see “Network”."
            )
        ]
    guarded = all(network.get("guard") for network in seen if network)
    if guarded and any(seen):
        return [ReportNote("good", "It made no network attempt while it ran.")]
    return []
