"""What a check sees and returns: an answer, its context, a verdict.

Strict parsing is here because every check reads an answer through it. Left out: repairing broken
JSON, which would grade the repair instead of the model.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NoReturn, TypeVar

import orjson

from offapi.checks.kinds import Match
from offapi.data.documents import KnownAnswer


@dataclass(frozen=True)
class Verdict:
    """A check's verdict: `score` in [0, 1], and the reason in a few words.

    `not_found` names the fields whose value the check looked for in the document in vain.
    """

    score: float
    reason: str
    not_found: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A model's answer: its text, and the JSON object in it.

    `value` is None where the text is not one JSON object; `error` then says why. `text` is without
    what `answer_reading` set aside; `forms` names that, or what left nothing to use.
    """

    text: str
    value: Mapping[str, Any] | None
    error: str = ""
    forms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """What the task knows: the answer's JSON schema, each field's kind, and gold where it exists.

    `messages` and `tools` are the whole chat that the answer ends: an agent's calls and their
    results.
    """

    schema: Mapping[str, Any] = field(default_factory=dict)
    match: Mapping[str, Match] = field(default_factory=dict)
    gold: KnownAnswer | None = None
    free_text: bool = False  # the answer is a text, and no JSON object is expected
    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()


Check = Callable[[str, Answer, Context], Verdict]
Need = Literal["object", "gold"]


_CheckT = TypeVar("_CheckT", bound=Callable[..., Verdict])


def needs(*what: Need) -> Callable[[_CheckT], _CheckT]:
    """Return a decorator that notes what a check cannot do without.

    "object": the answer must be a JSON object. "gold": the known answer, which nothing may reward.
    """

    def noted(check: _CheckT) -> _CheckT:
        vars(check)["needs"] = frozenset(what)
        return check

    return noted


def check_needs(check: Check, what: Need) -> bool:
    """Return whether `check` cannot do without an object, or without gold."""
    return what in getattr(check, "needs", ())


def plain(value: Any) -> Any:
    """Return a number or text of numpy or torch as Python's own; anything else as it is."""
    item = getattr(value, "item", None)
    if not callable(item):
        return value
    try:
        return item()
    except (TypeError, ValueError, RuntimeError):  # several numbers
        return value


def plain_verdict(returned: object) -> Verdict | str:
    """Return what a check returned, made of plain values; or a sentence that says what is wrong."""
    if not isinstance(returned, Verdict):
        return f"the check must return a Verdict, got {reprlib.repr(returned)}."
    score, reason = returned.score, returned.reason
    ordinary = type(score) is float and type(reason) is str
    if not ordinary:
        score, reason = plain(score), plain(reason)
    if not isinstance(score, Real) or isinstance(score, bool) or not 0.0 <= score <= 1.0:
        return f"the check's score must be in [0, 1], got {reprlib.repr(returned.score)}."
    if not isinstance(reason, str):
        return f"the check's reason must be a text, got {reprlib.repr(reason)}."
    try:
        reason.encode()
    except UnicodeEncodeError as error:
        letter = reason[error.start]
        return f"the check's reason holds {letter!r}, which is half a character and no text."
    return returned if ordinary else Verdict(float(score), str(reason))


def parse(text: str) -> Answer:
    """Read exactly one JSON object (RFC 8259), with white space around it and nothing else.

    Refused: NaN and Infinity, a key that occurs twice, numbers beyond 64 bits, lone surrogates, and
    nesting too deep to be written back.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite
        )
        orjson.dumps(value)  # an answer must be writable to predictions.jsonl
    except json.JSONDecodeError as error:
        return Answer(
            text, None, f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos}"
        )
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
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} occurs twice")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number {digits[:20]} is out of range")
    return number
