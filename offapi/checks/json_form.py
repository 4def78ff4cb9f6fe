"""Checks: the answer is one JSON object, as it is or after repair.

`repairable_json` shows how much of a model's failure is only a matter of form. Every other check
reads answers strictly and never grades a repaired one. Left out: which repair was made.
"""

from __future__ import annotations

from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.errors import ConfigError


@needs("object")
def is_json(document: str, answer: Answer, context: Context) -> Verdict:
    """Return 1 when the answer is one JSON object, else 0.

    Thinking before it, a code fence around it and a tool call that carries it do not count against
    it, unless the task is strict.
    """
    if answer.value is None:
        return Verdict(0.0, answer.error)
    aside = f"; set aside: {', '.join(answer.forms)}" if answer.forms else ""
    return Verdict(1.0, f"one JSON object{aside}")


def repairable_json(repaired: float = 0.5) -> Check:
    """Return a check: 1 for one JSON object, `repaired` for one after json-repair, else 0.

    An empty object after repair counts as 0.
    """
    if not 0.0 <= repaired <= 1.0:
        raise ConfigError(
            f"repaired must be a score from 0 to 1, got {repaired!r}.",
            next_step="Write repairable_json(repaired=0.5).",
        )
    whole = Verdict(1.0, "one JSON object")
    after_repair = Verdict(repaired, "one JSON object after repair")

    @needs("object")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is not None:
            return whole
        if _is_repairable(answer.text):
            return after_repair
        return Verdict(0.0, f"{answer.error}; repair did not help")

    return check


def _is_repairable(text: str) -> bool:
    from json_repair import loads  # takes 50 ms to import, and only broken answers need it

    if "{" not in text:
        return False
    try:
        value = loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value)
