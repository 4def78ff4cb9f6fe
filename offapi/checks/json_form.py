"""Checks: the answer is one JSON object, as it stands or after repair.

`repairable_json` shows how much of a model's failure is form alone. Every other check reads answers
strictly: a repaired answer is graded by none. Left out: which repair was made.
"""

from __future__ import annotations

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError


def is_json(document: str, answer: Answer, context: Context) -> Verdict:
    """1 when the whole answer is one JSON object, read strictly (`verdict.parse`), else 0."""
    return Verdict(0.0, answer.error) if answer.value is None else Verdict(1.0, "one JSON object")


def repairable_json(repaired: float = 0.5) -> Check:
    """A check: 1 for one JSON object, `repaired` for what
    json-repair makes one of that is not empty, else 0.
    """
    if not 0.0 <= repaired <= 1.0:
        raise ConfigError(
            f"repairable_json has repaired = {repaired!r}.", next_step="Give a score from 0 to 1."
        )
    whole = Verdict(1.0, "one JSON object")
    after_repair = Verdict(repaired, "one JSON object after repair")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is not None:
            return whole
        if _is_repairable(answer.text):
            return after_repair
        return Verdict(0.0, f"{answer.error}; no repair helps")

    return check


def _is_repairable(text: str) -> bool:
    from json_repair import loads  # 50 ms to import, and needed for broken answers alone

    if "{" not in text:
        return False
    try:
        value = loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value)
