"""The figures that decide, each with where it is from. `measured` puts others in their place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """A figure that decides, and where it is from."""

    name: str
    value: float
    unit: str
    source: str


RULE = "rule of thumb: "
THRESHOLDS = (
    Threshold(
        "check",
        50,
        "labels",
        RULE + "90% right of 50 is only known to be 79% to 96% (Wilson's interval)",
    ),
    Threshold(
        "answers",
        200,
        "answers",
        RULE
        + "118 kept labels brought the demo's student to its teacher's level, 612 on real receipts"
        " did not (docs/benchmarks.md)",
    ),
    Threshold(
        "prompts",
        200,
        "documents",
        RULE + "as many as answers; each is sampled in groups, again and again",
    ),
    Threshold(
        "signal",
        0.05,
        "share",
        RULE + "a group of 8 answers, each right with 5%, holds a right one in 34% of cases",
    ),
    Threshold(
        "volume",
        150_000,
        "requests a month",
        RULE + "break-even of `offapi cost` on a machine one owns, at its example prices of 2026-11"
        " (116,000 to 349,000)",
    ),
    Threshold(
        "burst_volume",
        300_000,
        "requests a month",
        RULE + "twice `volume`: in bursts a machine stands idle in between",
    ),
    Threshold(
        "life",
        6,
        "months",
        RULE + "the retraining interval that `offapi cost` assumes: one model's life",
    ),
)
