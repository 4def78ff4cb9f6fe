"""Check: the answer is one JSON object, or would be after mending what is broken in it.

To see how much of a model's failure is form. Every other check reads answers strictly; a
repaired answer is graded by none. Left out: which repair was made.
"""

from __future__ import annotations

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError


def repairable_json(repaired: float = 0.5) -> Check:
    """A check: 1 for one JSON object, `repaired` for what
    json-repair makes one of that is not empty, else 0.
    """
    if not 0.0 <= repaired <= 1.0:
        raise ConfigError(
            f"repairable_json has repaired = {repaired!r}.", next_step="Give a score from 0 to 1."
        )
    whole, mended = (
        Verdict(1.0, "one JSON object"),
        Verdict(repaired, "one JSON object after repair"),
    )

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is not None:
            return whole
        return mended if _mends(answer.text) else Verdict(0.0, f"{answer.error}; no repair helps")

    return check


def _mends(text: str) -> bool:
    from json_repair import loads  # 50 ms to import, and needed for broken answers alone

    if "{" not in text:
        return False
    try:
        value = loads(text, skip_json_loads=True)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value)
