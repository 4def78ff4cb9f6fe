"""How certain the student is of a whole answer, as one number to order documents by.

From a calibration it is the probability that all fields are right. Without one, it is the number
of fields in which a second reading agreed, and among equals the answer's log-probability. Left
out: what these are worth; the cascade's curve shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, prod
from typing import Literal

from offapi.confidence.signals import FieldSignals

Basis = Literal["confidence", "agreement and log-probability", "log-probability"]


def by_confidence(confidences: Mapping[str, float]) -> float:
    """Return the probability that all fields are right, as if they were independent."""
    return prod(confidences.values())


def by_signals(signals: Mapping[str, FieldSignals]) -> float:
    """Return how many fields a second reading gave alike, plus the answer's probability."""
    agreed = sum(each.agreement is True for each in signals.values())
    return agreed + exp(min(0.0, sum(each.sum_logprob for each in signals.values())))
