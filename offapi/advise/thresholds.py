"""The figures that decide, each with its source. `measured` replaces them where it can."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """A figure that decides, and its source."""

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
        RULE + "if 90% of 50 are right, the true share is 79% to 96% (Wilson's interval)",
    ),
    Threshold(
        "answers",
        200,
        "answers",
        RULE + "118 kept labels brought the demo's student to its teacher's accuracy; 612 on real"
        " receipts did not (docs/benchmarks.md)",
    ),
    Threshold(
        "prompts",
        200,
        "documents",
        RULE + "the same as answers; each document is sampled in groups, many times",
    ),
    Threshold(
        "signal",
        0.05,
        "share",
        RULE + "of groups of 8 answers, each right in 5% of cases, 34% contain a right one",
    ),
    Threshold(
        "volume",
        150_000,
        "requests a month",
        RULE + "break-even of `offapi cost` on a machine you own, at its example prices of 2026-11"
        " (116,000 to 349,000)",
    ),
    Threshold(
        "burst_volume",
        300_000,
        "requests a month",
        RULE + "twice `volume`: between bursts the machine is idle",
    ),
    Threshold(
        "life",
        6,
        "months",
        RULE + "the retraining interval that `offapi cost` assumes: the life of one model",
    ),
)
