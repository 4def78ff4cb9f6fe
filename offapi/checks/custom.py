"""A check made from a user's plain function of the document and the answer's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offapi.checks.verdict import Answer, Check, Context, Verdict, plain

Judgement = bool | float | tuple[bool | float, str]


def own(function: Callable[[str, Any], Judgement]) -> Check:
    """Return a check: what your `function(document, value)` says of the answer.

    The function returns true or false, a score from 0 to 1, or (score, reason). `value` is the
    answer's JSON object; an answer that is not one scores 0, and the function is not called. In a
    task that answers with text, `value` is that text. Any other result, None included, is an error
    and never a score.

        checks={"mine": (own(lambda document, value: value["total"] > 0), 1.0)}
    """
    name = getattr(function, "__name__", "own").strip("<>")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None and not context.free_text:
            return Verdict(0.0, answer.error)
        result: object = function(document, answer.text if context.free_text else answer.value)
        score, reason = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
        score, reason = plain(score), plain(reason)
        if isinstance(score, bool):
            score = float(score)
        if not isinstance(score, int | float) or not isinstance(reason, str):
            raise TypeError(
                f"{name} must return true or false, a score from 0 to 1 or (score, reason), got"
                f" {result!r}"
            )
        return Verdict(score, reason or f"{name} says {score:g}")

    return check
