"""What a reader finds in the text of a turn: calls, and what was meant as one but cannot be read.

Readers are of our own: transformers' response templates raise for a whole turn when one call is
broken, take a call that was cut off for a whole one, and are newer than the oldest transformers
that serves; those of mlx-lm come with mlx alone. Left out: whether a tool of that name exists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

CUT_OFF = "the call was cut off before its end"


@dataclass(frozen=True)
class FoundCall:
    """A call at `begin` to `end` of a text. `why` says why it is not one; "" where it is."""

    begin: int
    end: int
    name: str = ""
    arguments: Mapping[str, Any] | None = None
    why: str = ""


class CallReader(Protocol):
    """How one family writes calls. `name` is the format's, for plans and reports."""

    @property
    def name(self) -> str:
        """The format's name."""
        ...

    def find(self, text: str, tools: Sequence[Mapping[str, Any]]) -> list[FoundCall]:
        """Return the calls in `text`, in order and apart. It never raises."""
        ...


class NotJson(ValueError):
    """No JSON value stands where one should; the message is for the model."""


def read_json(text: str, begin: int) -> tuple[Any, int]:
    """Return the JSON value at `begin` of `text`, and where it ends. Raise NotJson."""
    try:
        return _DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as error:
        if not text[error.pos :].strip() or error.msg.startswith("Unterminated string"):
            raise NotJson(CUT_OFF) from None
        where = f"line {error.lineno - text.count(chr(10), 0, begin)}"
        raise NotJson(f"it is not valid JSON: {error.msg}, {where}") from None
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except ValueError as error:  # NaN and Infinity, or a number of thousands of digits
        raise NotJson(f"it is not valid JSON: {error}") from None


def call_of(value: object, begin: int, end: int, *, key: str = "arguments") -> FoundCall:
    """Return the call that a JSON value is, whose arguments are at `key`."""
    if not isinstance(value, Mapping) or not isinstance(name := value.get("name"), str) or not name:
        return FoundCall(begin, end, why='a call must be an object with "name"')
    arguments = value.get(key)
    if not isinstance(arguments, Mapping):
        return FoundCall(begin, end, why=f'"{key}" must be an object with the arguments by name')
    return checked(FoundCall(begin, end, name, arguments))


def checked(call: FoundCall) -> FoundCall:
    """Return `call`, as a broken one where its arguments cannot be stored as JSON."""
    try:
        orjson.dumps([call.name, call.arguments])
    except (TypeError, ValueError, RecursionError) as error:  # half a surrogate, a number of 2**70
        return FoundCall(call.begin, call.end, why=f"its arguments cannot be JSON: {error}")
    return call


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)
