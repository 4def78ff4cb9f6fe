"""The inputs of a cost estimate: name, unit, bounds, and the value assumed if none is given.

One table serves the flags, the TOML keys and the list of assumptions. Left out: the arithmetic
(`model`) and where measured inputs come from (`from_run`, `measure`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

from offapi.errors import ConfigError
from offapi.text.amounts import read_amount

ASSUMED = "assumed"
STATED = ("currency", "dated")  # texts that a file may hold in addition to the inputs


@dataclass(frozen=True)
class Range:
    """The range of an input, and its most likely value.

    Raises ValueError unless low <= likely <= high, all finite.
    """

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        if not (-math.inf < self.low <= self.likely <= self.high < math.inf):
            raise ValueError("must be low:likely:high, from low to high")

    @classmethod
    def parse(cls, given: str | float) -> Range:
        """Read `3`, `50k` or `low:likely:high`. Raise ValueError for anything else."""
        try:
            numbers = [read_amount(part) for part in str(given).split(":")]
        except ValueError:
            raise ValueError("must be a number or low:likely:high") from None
        if len(numbers) not in (1, 3):
            raise ValueError("must be a number or low:likely:high")
        return cls(*numbers) if len(numbers) == 3 else cls(*numbers * 3)

    @property
    def uncertain(self) -> bool:
        """Whether the value is not exactly known."""
        return self.low < self.high

    def text(self) -> str:
        """Return the range as in `0.25 (0.1 to 0.4)`."""
        return f"{self.likely:,g}" + (
            f" ({self.low:,g} to {self.high:,g})" if self.uncertain else ""
        )


@dataclass(frozen=True)
class Input:
    """An input. Without `assumed` it must be given or measured, or follows as `follows` says."""

    key: str
    unit: str
    help: str
    assumed: str | None = None
    follows: str | None = None
    least: float = 0.0
    most: float = math.inf
    positive: bool = False  # zero is refused

    @property
    def flag(self) -> str:
        """The input's flag on the command line."""
        return "--" + self.key.replace("_", "-")

    def read(self, given: str | float) -> Range:
        """Read `given`. Raise ValueError, with the reason, if it is out of this input's bounds."""
        range = Range.parse(given)
        if range.low < self.least or range.high > self.most or (self.positive and range.low <= 0):
            least = "above 0" if self.positive else f"at least {self.least:g}"
            most = f" and at most {self.most:g}" if self.most < math.inf else ""
            raise ValueError(f"must be {least}{most}, got {given}")
        return range


@dataclass(frozen=True)
class Quantity:
    """A range and its source: a flag, a file, a run, or `assumed`."""

    range: Range
    source: str


INPUTS = (
    Input("requests", "a month", "Requests in the first month.", positive=True),
    Input(
        "growth",
        "a month",
        "Monthly growth of the requests, as a fraction: 0.05 is 5%.",
        "0",
        least=-0.9,
        most=1.0,
    ),
    Input("input_tokens", "tokens", "Prompt tokens per request, as billed by the API.", most=1e9),
    Input("output_tokens", "tokens", "Answer tokens per request, as billed by the API.", most=1e9),
    Input("price_in", "per million tokens", "API price per million prompt tokens."),
    Input("price_out", "per million tokens", "API price per million answer tokens."),
    Input(
        "price_cached",
        "per million tokens",
        "API price per million cached prompt tokens.",
        follows="as price_in",
    ),
    Input(
        "cached_share",
        "share",
        "Fraction of the prompt tokens that the API bills as cached, 0 to 1.",
        "0",
        most=1.0,
    ),
    Input(
        "batch_share",
        "share",
        "Fraction of the requests that can use the API's batch service, 0 to 1.",
        "0",
        most=1.0,
    ),
    Input(
        "batch_discount",
        "share",
        "Discount of the API's batch service, as a fraction: 0.5 halves the price.",
        "0",
        most=1.0,
    ),
    Input(
        "seconds",
        "s",
        "Machine time per request when many requests run at once, in seconds.",
        positive=True,
    ),
    Input(
        "tokens_per_second",
        "tokens/s",
        "Answer tokens per second that your model writes when many requests run at once, with the"
        " time to read the prompts included. Use it instead of --seconds.",
        positive=True,
    ),
    Input(
        "own_tokens",
        "tokens",
        "Answer tokens per request that your model writes.",
        follows="as output_tokens",
        most=1e9,
    ),
    Input(
        "utilisation",
        "share",
        "Fraction of the month in which the machine can be kept busy, 0 to 1. It is below 1 because"
        " requests come in bursts.",
        "0.2:0.5:0.8",
        most=1.0,
        positive=True,
    ),
    Input(
        "escalated_share",
        "share",
        "Fraction of the requests that you still send to the API, 0 to 1.",
        "0:0.05:0.2",
        most=1.0,
    ),
    Input("watts", "W", "Power draw of the machine at work, in watts.", "50:300:600"),
    Input("idle_watts", "W", "Power draw of the idle machine, in watts.", "10:50:100"),
    Input("tariff", "per kWh", "Price of electricity, per kWh.", "0.1:0.25:0.4"),
    Input("hardware_price", "", "Price of a machine if you buy one.", "1500:3000:6000"),
    Input(
        "hardware_months",
        "months",
        "Service life of the machine, in months.",
        "24:36:60",
        positive=True,
    ),
    Input(
        "hardware_share",
        "share",
        "Fraction of the machine's cost that is charged to this task at least, 0 to 1.",
        "1",
        most=1.0,
    ),
    Input("rent", "an hour", "Price of a rented machine, per hour.", "0.5:1.5:4"),
    Input(
        "rent_hours",
        "hours a month",
        "Hours per month that the machine is rented at least; 730 is always on.",
        "730",
        most=730.0,
    ),
    Input(
        "labels", "each retraining", "Labels that you pay for at each retraining.", "200:500:1000"
    ),
    Input("label_price", "each", "Price of one label.", follows="as a request at the API"),
    Input(
        "review_hours",
        "each retraining",
        "Hours of a person's work at each retraining: reviewing labels, training, evaluating.",
        "4:8:24",
    ),
    Input(
        "training_hours", "each retraining", "Hours of machine time at each retraining.", "1:4:12"
    ),
    Input(
        "months_between_retrainings",
        "months",
        "Months until a model has to be trained again.",
        "3:6:12",
        positive=True,
    ),
    Input(
        "setup_hours",
        "once",
        "Hours of a person's work until the first model serves requests.",
        "20:60:160",
    ),
    Input(
        "operation_hours",
        "a month",
        "Hours of a person's work per month to keep the model serving.",
        "1:3:8",
    ),
    Input(
        "hourly_rate",
        "an hour",
        "Cost per hour of the people's work, for all the hours above.",
        "40:70:120",
    ),
    Input(
        "horizon_months",
        "months",
        "Months for which the task will exist.",
        "12:24:48",
        least=1.0,
        most=240.0,
    ),
)
BY_KEY = {row.key: row for row in INPUTS}
SPEEDS = ("seconds", "tokens_per_second")  # exactly one of them is known

_FIELDS = [(row.key, float | str | None, None) for row in INPUTS]
_FIELDS += [(key, str | None, None) for key in STATED]


def _check(given: Any) -> None:
    for row in INPUTS:
        value = getattr(given, row.key)
        if value is not None:
            try:
                row.read(value)
            except ValueError as error:
                raise ValueError(f"{row.key} {error}") from None


# The keys of a costs file: the rows above, all optional.
File = make_dataclass(
    "File", _FIELDS, frozen=True, kw_only=True, namespace={"__post_init__": _check}
)


@dataclass(frozen=True)
class CostInputs:
    """Every known input by key, the currency, and the date of the prices if a file gives one."""

    known: Mapping[str, Quantity]
    currency: str = "$"
    dated: str | None = None

    def assumed(self) -> list[str]:
        """Return the keys that were neither given nor measured."""
        return [key for key, quantity in self.known.items() if quantity.source == ASSUMED]


@dataclass(frozen=True)
class Layer:
    """Inputs from one source. A later layer overrides an earlier one."""

    known: Mapping[str, Quantity]
    stated: Mapping[str, str]

    @classmethod
    def of_file(cls, path: Path) -> Layer:
        """Read a TOML file.

        Raise ConfigError, with line and field, for an unknown key or a value out of bounds.
        """
        from offapi.config import load

        values = {
            key: value for key, value in vars(load.load(path, File)).items() if value is not None
        }
        known = {
            key: Quantity(BY_KEY[key].read(value), str(path))
            for key, value in values.items()
            if key in BY_KEY
        }
        return cls(known, {key: values[key] for key in STATED if key in values})

    @classmethod
    def of_flags(cls, given: Mapping[str, str]) -> Layer:
        """Read values by key, as on the command line. Raise ConfigError that names the flag."""
        known = {}
        for key, value in given.items():
            row = BY_KEY[key]
            try:
                known[key] = Quantity(row.read(value), row.flag)
            except ValueError as error:
                step = f"{row.help} For example: {row.flag} {row.assumed or '100'}"
                raise ConfigError(
                    f"{error}.", where=f"{row.flag} {value}", next_step=step
                ) from None
        return cls(known, {})


def resolve_inputs(layers: Sequence[Layer]) -> CostInputs:
    """Merge the layers, later ones first, and fill in the assumptions.

    Raise ConfigError for a missing input, or for two that contradict each other.
    """
    known: dict[str, Quantity] = {}
    stated: dict[str, str] = {}
    for layer in layers:
        speeds = [key for key in SPEEDS if key in layer.known]
        if len(speeds) == 2:
            where = ", ".join(sorted({layer.known[key].source for key in speeds}))
            raise ConfigError(
                "seconds and tokens_per_second are two ways to give the same input.",
                where=where,
                next_step="Keep only one of them.",
            )
        known = {key: value for key, value in known.items() if not (speeds and key in SPEEDS)}
        known |= layer.known
        stated |= layer.stated
    assumed = {
        row.key: Quantity(row.read(row.assumed), ASSUMED)
        for row in INPUTS
        if row.assumed is not None
    }
    known = {row.key: (assumed | known)[row.key] for row in INPUTS if row.key in assumed | known}
    _complete(known)
    return CostInputs(known, stated.get("currency", "$"), stated.get("dated"))


def _complete(known: Mapping[str, Quantity]) -> None:
    needed = [
        row
        for row in INPUTS
        if row.assumed is None and row.follows is None and row.key not in SPEEDS
    ]
    missing = [f"{row.flag} ({row.help.rstrip('.')})" for row in needed if row.key not in known]
    if not any(key in known for key in SPEEDS):
        missing.append("--seconds or --tokens-per-second (or a --run with --measure)")
    if missing:
        step = (
            "Give them as flags, or in a file with --from. `offapi cost --example costs.toml`"
            " writes a file to edit."
        )
        raise ConfigError(f"these inputs are missing: {'; '.join(missing)}.", next_step=step)
