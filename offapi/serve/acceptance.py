"""Which answers to a task's questions are sure enough to be served as they are, and why not.

Left out: what happens to the others (`offapi.serve.escalation`, `offapi.serve.review_queue`).
"""

from __future__ import annotations

from math import floor

from offapi.predict.prediction import DocumentAnswer
from offapi.predict.predictor import AskedHow


def why_unaccepted(answer: DocumentAnswer, asked: AskedHow, below: float | None) -> str:
    """Return why an answer is not accepted, field by field; "" where it is.

    With `below`, an answer is accepted if no field's confidence is below it, else if the run's
    promise covers the whole document. Without a promise that holds nothing is.
    """
    if answer.error is not None:
        return "no answer"
    if asked.promise is None:
        return "no confidence"
    if asked.promise.withdrawn is not None:
        return "the promise was withdrawn"
    sure = {name: each for name, each in answer.fields.items() if each.confidence is not None}
    if below is not None:
        under = [(name, each.confidence or 0.0) for name, each in sure.items()]
        return "; ".join(f"{n} {_short(c)} < {_short(below)}" for n, c in under if c < below)
    if answer.accepted:
        return ""
    doubted = [name for name, each in sure.items() if not each.accepted]
    said = [f"{name} {_short(sure[name].confidence or 0.0)} is not accepted" for name in doubted]
    return "; ".join(said) or "the whole document is not accepted"


def _short(number: float) -> str:
    """Write a probability as .62, never rounded up."""
    return f"{floor(number * 1000 + 1e-9) / 1000:g}".removeprefix("0") or "0"
