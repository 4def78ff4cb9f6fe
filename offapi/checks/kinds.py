"""What a field's value means: the kinds that a task's `match` gives to its fields.

A kind decides when an answer equals gold (`offapi.checks.gold`), what counts as printed in the
document (`offapi.checks.in_source`) and how a number is spelled. `EXPLAINED` holds what `offapi
explain match` and the documentation print; a test compares every example. A gold null wants null
or nothing, whatever the kind. Left out: kinds of the user's own, which are checks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from offapi.errors import ConfigError, nearest

KindName = Literal[
    "text", "exact", "number", "date", "boolean", "choice", "list", "object", "fuzzy"
]
KIND_NAMES: tuple[KindName, ...] = get_args(KindName)
DEFAULT_THRESHOLD = 90.0  # of 100, for "fuzzy"


@dataclass(frozen=True)
class Kind:
    """A kind of field, with what it tolerates.

    `within` (in the number's own unit) and `relative` (a share of gold, 0.01 for 1%) are for
    "number": a number is right where either allows it. `threshold` is for "fuzzy": the least
    similarity, of 100.
    """

    name: KindName
    within: float | None = None
    relative: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError where the name is unknown or a tolerance does not fit it."""
        check_kind_name(self.name, "a kind")
        for key, owner, most in (
            ("within", "number", math.inf),
            ("relative", "number", math.inf),
            ("threshold", "fuzzy", 100.0),
        ):
            value = getattr(self, key)
            if value is None:
                continue
            if self.name != owner:
                raise ConfigError(
                    f"{key} is for the kind {owner!r}, not for {self.name!r}.",
                    next_step=f'Write Kind("{owner}", {key}={value!r}), or leave {key} out.',
                )
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{key} must be a number, got {value!r}.")
            if not 0 <= value <= most or value == math.inf:
                span = "0 or more" if most == math.inf else "from 0 to 100"
                raise ConfigError(f"{key} must be {span}, got {value!r}.")


Match = KindName | Kind


def kind_of(match: Match) -> Kind:
    """Return `match` as a Kind."""
    return match if isinstance(match, Kind) else _PLAIN[match]


# What people call a kind in other tools, and what it is called here.
_OTHERWISE: Mapping[str, KindName] = {
    "string": "text", "str": "text", "name": "text", "equal": "exact", "identifier": "exact",
    "id": "exact", "float": "number", "int": "number", "integer": "number", "money": "number",
    "amount": "number", "currency": "number", "datetime": "date", "day": "date", "bool": "boolean",
    "yes/no": "boolean", "enum": "choice", "category": "choice", "label": "choice",
    "class": "choice", "array": "list", "set": "list", "dict": "object", "nested": "object",
    "similar": "fuzzy", "similarity": "fuzzy",
    "summary": "fuzzy",
}  # fmt: skip


def check_kind_name(name: object, what: str) -> None:
    """Raise ConfigError, calling the place `what`, unless `name` is the name of a kind."""
    if isinstance(name, str) and name in KIND_NAMES:
        return
    known = _OTHERWISE.get(name.lower()) if isinstance(name, str) else None
    step = f"Did you mean {known!r}?" if known else nearest(str(name), KIND_NAMES)
    step += " `offapi explain match` describes them."
    raise ConfigError(
        f"{what} must be one of {', '.join(KIND_NAMES)}, or a Kind, got {name!r}.", next_step=step
    )


_PLAIN: Mapping[str, Kind] = {name: Kind(name) for name in KIND_NAMES}


@dataclass(frozen=True)
class KindExplained:
    """A kind in words, with an (answer, gold) pair that is equal and one that is not."""

    equal: str
    same: tuple[Any, Any]
    different: tuple[Any, Any]


EXPLAINED: Mapping[KindName, KindExplained] = {
    "text": KindExplained(
        "the same letters, digits and signs. Case, spaces and punctuation do not count; marks"
        " between or before digits do (12.34 is not 1234), and so do symbols (A+, $5, 50%). true"
        " and false are compared as such",
        ("FOO LTD.", "Foo Ltd"),
        ("1.5 kg", "15 kg"),
    ),
    "exact": KindExplained(
        "the same JSON value, character for character; only the Unicode form of accents is free",
        ("INV-2026-00417", "INV-2026-00417"),
        ("inv 2026 00417", "INV-2026-00417"),
    ),
    "number": KindExplained(
        "within half a cent of gold; where gold has three decimals or more, within half of its"
        ' last one. Kind("number", within=0.5) and Kind("number", relative=0.01) state another'
        " tolerance. A number in quotes is wrong",
        (12.504, 12.5),
        (0.07, 0.075),
    ),
    "date": KindExplained(
        "the same day, written YYYY-MM-DD",
        ("2026-03-04", "2026-03-04"),
        ("04/03/2026", "2026-03-04"),
    ),
    "boolean": KindExplained("both true or both false", (True, True), ("true", True)),
    "choice": KindExplained(
        "the same value of the schema's `enum`, as it is written there",
        ("refund", "refund"),
        ("Refund", "refund"),
    ),
    "list": KindExplained(
        "the same items in any order; an item is right as a whole or not at all. Checks score the"
        " F1 of the items, and eval shows it next to the share of lists that are all right",
        (["Tea", "Rye loaf"], ["rye loaf", "tea"]),
        (["Tea"], ["Tea", "Rye loaf"]),
    ),
    "object": KindExplained(
        "every field inside is equal: texts, numbers and lists as above. Checks score the share of"
        " its fields, and eval shows each",
        ({"city": "Lyon", "code": None}, {"city": "LYON"}),
        ({"city": "Lyon"}, {"city": "Lille"}),
    ),
    "fuzzy": KindExplained(
        "as similar as the threshold asks for, 90 of 100 unless Kind("
        '"fuzzy", threshold=85) states another: for free text, not for numbers or identifiers',
        ("The parcel arrived broken.", "The parcel has arrived broken"),
        ("The parcel is late.", "The parcel arrived broken."),
    ),
}
