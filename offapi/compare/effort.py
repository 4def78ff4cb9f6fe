"""The effort of an arm: human minutes (assumed), teacher tokens, machine minutes (measured), kWh.

Left out: the effort for the task, the checks, the val and the test answers, which every recipe
needs; and what a served answer costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offapi.compare.arm import Arm
from offapi.compare.config import Keys, RecipeName
from offapi.compare.train_arm import ArmOutcome
from offapi.teachers.teacher import Usage

LOCAL = "local:"


@dataclass(frozen=True)
class Effort:
    """The effort of an arm, including the arm it started from.

    `usage` and `dollars` are None where they were not counted.
    """

    human_minutes: float
    machine_minutes: float
    kwh: float
    usage: Usage | None = Usage()
    dollars: float | None = 0.0

    @property
    def hours(self) -> float:
        """Hours of people and machine together."""
        return (self.human_minutes + self.machine_minutes) / 60

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.human_minutes + other.human_minutes,
            self.machine_minutes + other.machine_minutes,
            self.kwh + other.kwh,
            None if self.usage is None or other.usage is None else self.usage + other.usage,
            None if self.dollars is None or other.dollars is None else self.dollars + other.dollars,
        )


def arm_effort(keys: Keys, arm: Arm, outcomes: Mapping[RecipeName, ArmOutcome]) -> Effort:
    """Return the effort of the arm and of the arm it started from."""
    outcome = outcomes[arm.recipe]
    minutes = outcome.seconds / 60
    labelling = keys.label_minutes * outcome.rows if arm.recipe == "sft" else 0.0
    usage, dollars = _teacher(keys, outcome) if arm.recipe == "distill" else (Usage(), 0.0)
    own = Effort(labelling, minutes, kwh(keys, outcome.seconds), usage, dollars)
    return own + arm_effort(keys, arm.start, outcomes) if arm.start else own


def kwh(keys: Keys, seconds: float) -> float:
    """Return the energy used in `seconds` at the stated power."""
    return seconds / 3600 * keys.watts / 1000


def _teacher(keys: Keys, outcome: ArmOutcome) -> tuple[Usage | None, float | None]:
    if outcome.usage is None:
        return None, None
    local = keys.labels is None and (keys.teacher or "").startswith(LOCAL)
    if keys.price is None:
        return outcome.usage, 0.0 if local else None
    return outcome.usage, keys.price.of(outcome.usage)
