"""What the figures mean for training, in plain words."""

from __future__ import annotations

from math import sqrt

from offapi.stats.interval import Interval
from offapi.stats.sample_size import EIGHTY_PERCENT

FEWEST, SOME = 50, 200  # rows
BASIS = "OpenAI's fine-tuning guide starts at 50 examples and sees gains from 50 to 100"
DISCORDANT = 0.2  # share of documents on which two models usually differ


def ceiling(right: Interval | None, known: int, kept: int) -> list[str]:
    """What a student of these rows can reach."""
    if not kept:
        return []
    if right is None:
        return [
            "How many of the kept rows are right is not known: add gold to some, name a file with"
            " --gold, or judge 30 yourself with --review 30."
        ]
    return [
        f"Ceiling: of the kept rows, {right.percent()}% are right in every field ({known:,} known)."
        " A student trained on them approaches that, and rarely passes it."
    ]


def enough(kept: int, evaluation: int | None) -> list[str]:
    """Whether there are enough rows, and what an evaluation could tell afterwards."""
    if kept < FEWEST:
        told = f"{kept} rows are too few: do not train on fewer than {FEWEST} ({BASIS})."
    elif kept < SOME:
        told = (
            f"{kept} rows are few: expect the form of the answers to be learned, and more rows to"
            f" help ({BASIS})."
        )
    else:
        told = (
            f"{kept:,} rows are enough to start ({BASIS}); whether more would help, only training"
            " on more shows."
        )
    return [told, f"Afterwards, {_detectable(evaluation)}"]


def _detectable(evaluation: int | None) -> str:
    if evaluation:
        return (
            f"the {evaluation:,} evaluation documents can show a difference of"
            f" {_points(evaluation)} points or more."
        )
    return (
        f"an evaluation of 100 documents can show a difference of {_points(100)} points or more, "
        f"one of 400 of {_points(400)}."
    )


def _points(documents: int) -> str:
    """Found with 80% power where two models differ on a fifth of the documents (Connor 1987)."""
    return f"{100 * min(1.0, EIGHTY_PERCENT * sqrt(DISCORDANT / documents)):.1f}"
