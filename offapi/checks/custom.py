"""A check made of a user's plain function of the document and the answer's fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from offapi.checks.verdict import Answer, Check, Context, Verdict

Judgement = bool | float | tuple[bool | float, str]


def own(function: Callable[[str, Mapping[str, Any]], Judgement]) -> Check:
    """A check that asks `function(document, value)`: true
    or false, a score from 0 to 1, or (score, reason).

    `value` is the answer's JSON object; an answer that is none scores 0 without asking.
    Anything else it returns, None included, is an error and never a score.

        checks={"mine": (own(lambda document, value: value["total"] > 0), 1.0)}
    """
    name = getattr(function, "__name__", "own").strip("<>")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        said: object = function(document, answer.value)
        score, reason = said if isinstance(said, tuple) and len(said) == 2 else (said, "")
        if isinstance(score, bool):
            score = float(score)
        if not isinstance(score, int | float) or not isinstance(reason, str):
            raise TypeError(
                f"{name} returned {said!r}, not a score from 0 to 1, true or false, or (score,"
                " reason)"
            )
        return Verdict(score, reason or f"{name} says {score:g}")

    return check
