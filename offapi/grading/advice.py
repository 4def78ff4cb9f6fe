"""What the grading figures mean for training, in plain words."""

from __future__ import annotations

from offapi.stats import sample_size
from offapi.stats.interval import Interval
from offapi.text.display import plural

FEWEST, SOME = 50, 200  # rows
BASIS = "OpenAI's fine-tuning guide starts at 50 examples and sees gains from 50 to 100"
DISCORDANT = 0.2  # share of documents on which two models usually differ


def ceiling(right: Interval | None, known: int, kept: int) -> list[str]:
    """Return how accurate a student trained on these rows can become."""
    if not kept:
        return []
    if right is None:
        return [
            "The share of correct rows among those kept is unknown. Add gold to some rows, name a"
            " file with --gold, or review 30 rows yourself with --review 30 (the only way where"
            " answers are texts)."
        ]
    return [
        f"Ceiling: {right.percent()}% of the kept rows are right in every field ({known:,} known)."
        " A student trained on them approaches this figure and rarely exceeds it."
    ]


def enough(kept: int, evaluation: int | None) -> list[str]:
    """Return whether there are enough rows, and which difference an evaluation can detect."""
    if kept < FEWEST:
        verdict = (
            f"{plural(kept, 'row is', 'rows are')} too few: do not train on fewer than"
            f" {FEWEST} ({BASIS})."
        )
    elif kept < SOME:
        verdict = (
            f"{plural(kept, 'row is', 'rows are')} few: expect the student to learn the form of"
            " the answers, and more"
            f" rows to help ({BASIS})."
        )
    else:
        verdict = (
            f"{plural(kept, 'row is', 'rows are')} enough to start ({BASIS}). Only training on"
            " more rows shows whether"
            " more would help."
        )
    return [verdict, f"Afterwards, {_detectable(evaluation)}"]


def _detectable(evaluation: int | None) -> str:
    if evaluation:
        return (
            f"the {plural(evaluation, 'evaluation document')} can detect a difference of"
            f" {_points(evaluation)} points or more."
        )
    return (
        f"an evaluation on 100 documents can detect a difference of {_points(100)} points or more,"
        f" one on 400 a difference of {_points(400)}."
    )


def _points(documents: int) -> str:
    """Return the difference in points that has 80% power if a fifth differ (Connor 1987)."""
    return f"{100 * sample_size.difference(DISCORDANT * documents, documents):.1f}"
