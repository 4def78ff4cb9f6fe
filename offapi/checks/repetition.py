"""Check: the answer does not go round in circles, as small models do until they are cut off.

Left out: sentences that come again elsewhere; only what follows itself at once is a loop.
"""

from __future__ import annotations

from offapi.checks.verdict import Answer, Check, Context, Verdict
from offapi.errors import ConfigError

SHORTEST = 40  # characters of a loop, all its rounds together
LONGEST_ROUND = 100  # characters
_GRAM, _STRIDE = (
    8,
    16,
)  # every loop holds a piece that begins at a multiple of the stride and comes again


def no_repetition(rounds: int = 8) -> Check:
    """A check: 0 when a stretch of up to 100 characters follows
    itself until it stands there `rounds` times, else 1.

    Passed over: less than 40 characters in all, and what the document repeats as well.
    """
    if rounds < 4:
        raise ConfigError(f"no_repetition has rounds = {rounds}.", next_step="Give 4 or more.")
    fine = Verdict(1.0, "no loop")

    def check(document: str, answer: Answer, context: Context) -> Verdict:
        text = answer.text
        for anchor in range(0, len(text) - SHORTEST + _STRIDE, _STRIDE):
            found = _loop(text, anchor, rounds)
            if found and text[found[0] : found[0] + SHORTEST] not in document:
                first, period, size = found
                return Verdict(
                    0.0,
                    f"{text[first : first + period]!r} stands there {size // period} times on end",
                )
        return fine

    return check


def _loop(text: str, anchor: int, rounds: int) -> tuple[int, int, int] | None:
    """Where the loop around `anchor` begins, how long a
    round is, and how long it is; None where there is none.
    """
    gram = text[anchor : anchor + _GRAM]
    again = text.find(gram, anchor + 1, anchor + LONGEST_ROUND + _GRAM)
    while again >= 0:
        period = again - anchor
        first, last = anchor, again
        while first > 0 and text[first - 1] == text[first - 1 + period]:
            first -= 1
        while last < len(text) and text[last] == text[last - period]:
            last += 1
        if last - first >= max(SHORTEST, period * rounds):
            return first, period, last - first
        again = text.find(gram, again + 1, anchor + LONGEST_ROUND + _GRAM)
    return None
