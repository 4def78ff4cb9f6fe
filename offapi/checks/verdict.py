"""What a check sees and says: an answer, its context, a verdict.

Strict parsing lives here because every check reads an answer through it. Left out:
repairing broken JSON, which would grade a repair instead of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import orjson

Match = Literal["text", "date", "number", "list"]


@dataclass(frozen=True)
class Verdict:
    """One check's opinion: `score` in [0, 1], and why in a few words."""

    score: float
    reason: str


@dataclass(frozen=True)
class Answer:
    """A model's answer: its text, and the object in it,
    or None and the error that kept it from being one.
    """

    text: str
    value: Mapping[str, Any] | None
    error: str = ""


@dataclass(frozen=True)
class Context:
    """What the task knows: the answer's JSON schema, each
    field's kind, and the gold answer where there is one.

    `messages` and `tools` are the whole chat where the
    answer ends one: an agent's calls and what they returned.
    """

    schema: Mapping[str, Any] = field(default_factory=dict)
    match: Mapping[str, Match] = field(default_factory=dict)
    gold: Mapping[str, Any] | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()


Check = Callable[[str, Answer, Context], Verdict]


def parse(text: str) -> Answer:
    """Read exactly one JSON object (RFC 8259), white space around it allowed, nothing else.

    Refused: NaN and Infinity, a key given twice, numbers beyond 64 bits, lone surrogates,
    nesting that could not be written back.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite
        )
        orjson.dumps(value)  # what cannot be written to predictions.jsonl is no answer
    except json.JSONDecodeError as error:
        return Answer(text, None, f"not JSON: {error.msg} at character {error.pos}")
    except RecursionError:
        return Answer(text, None, "not JSON: nested too deeply")
    except (ValueError, TypeError) as error:
        return Answer(text, None, f"not JSON: {error}")
    if not isinstance(value, dict):
        return Answer(text, None, f"a JSON {_KINDS.get(type(value), 'value')}, not an object")
    return Answer(text, value)


_KINDS = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number {digits[:20]} is out of range")
    return number
