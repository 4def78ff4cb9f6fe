"""What a model's answer says about how sure each field is, as a few numbers for one model.

Left out: reading them off an answer (`offapi.predict`), and what they are worth
(`offapi.confidence.model`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, log, log1p
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from offapi.errors import DataError

LEAST = -12.0  # nats: below it a field is about as doubtful as can be
SUREST = 12.0  # nats of log-odds, and of a margin
FEATURES = (
    "log_odds",
    "margin",
    "runner_up",
    "agreement",
    "checks",
    "occurrences",
    "place",
    "is_null",
)


@dataclass(frozen=True, kw_only=True)
class FieldSignals:
    """How sure an answer is of one field; None is what was not asked or cannot be known.

    Log-probabilities are those of the field's own tokens in the model's own distribution
    (temperature 1, nothing forbidden), in nats.
    """

    sum_logprob: float
    mean_logprob: float
    least_logprob: float
    margin: float  # the least token's logprob, less that of the likeliest other token
    runner_up: float | None = None  # `sum_logprob` less that of the best other candidate
    agreement: bool | None = None  # a second reading gave an equal value
    checks: float | None = None  # mean score of the task's checks, those against gold left out
    occurrences: int = 0  # how often the value is printed in the document
    place: float | None = None  # where it is first printed: 0 the beginning, 1 the end
    is_null: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the object that an answers file holds under "signals"."""
        return asdict(self)

    @classmethod
    def of(cls, value: Mapping[str, Any], where: str = "") -> FieldSignals:
        """Read what `as_dict` returned; raise DataError, naming `where`, for anything else."""
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            step = "Write the file with `offapi predict --signals`."
            raise DataError(
                f"the signals cannot be read ({error}).", where=where, next_step=step
            ) from None


def features(signals: FieldSignals) -> NDArray[np.float64]:
    """Return the numbers that the confidence model reads, (F,) in the order of FEATURES.

    What is not known is 0, and so is a signal that says neither yes nor no. The mean and the least
    log-probability are not among them: they say what their sum and the margin say.
    """
    return np.array(
        [
            log_odds(signals.sum_logprob),
            _clipped(signals.margin),
            _clipped(signals.runner_up or 0.0),
            0.0 if signals.agreement is None else 2.0 * signals.agreement - 1.0,
            0.0 if signals.checks is None else signals.checks,
            log1p(max(signals.occurrences, 0)),
            0.0 if signals.place is None else signals.place,
            float(signals.is_null),
        ]
    )


def log_odds(logprob: float) -> float:
    """Return log(p / (1 - p)) of p = exp(`logprob`), from LEAST to SUREST.

    It distinguishes what logprobs near 0 do not: .999 from .9999.
    """
    if logprob >= -exp(-SUREST):
        return SUREST
    if logprob <= LEAST:
        return LEAST
    return min(logprob - log(-np.expm1(logprob)), SUREST)


def _clipped(margin: float) -> float:
    return min(max(margin, -SUREST), SUREST)
