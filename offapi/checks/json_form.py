"""Check: the answer is exactly one JSON object."""

from __future__ import annotations

from offapi.checks.verdict import Answer, Context, Verdict


def is_json(document: str, answer: Answer, context: Context) -> Verdict:
    """1 when the whole answer is one JSON object, read strictly (`verdict.parse`), else 0."""
    return Verdict(0.0, answer.error) if answer.value is None else Verdict(1.0, "one JSON object")
