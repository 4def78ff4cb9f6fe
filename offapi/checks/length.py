"""Check: the answer is neither too short nor too long, in characters."""

from __future__ import annotations

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError


def length(low: int = 1, high: int | None = None) -> Check:
    """A check: 1 when the answer's text has from
    `low` to `high` characters, both included, else 0.
    """
    if low < 0 or (high is not None and high < low):
        raise ConfigError(
            f"length has the limits {low} and {high}.", next_step="Give low and high in characters."
        )
    right = Verdict(1.0, "the length is right")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        size = len(answer.text)
        if size < low:
            return Verdict(0.0, f"{size} characters, fewer than {low}")
        return (
            right
            if high is None or size <= high
            else Verdict(0.0, f"{size} characters, more than {high}")
        )

    return check
