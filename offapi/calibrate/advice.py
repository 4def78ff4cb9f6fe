"""Why a field cannot be promised, and what would help.

Left out: whether gold is right, which only a person can see; the surest wrong answers are named to
be looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offapi.stats.learn_then_test import documents_needed, p_value
from offapi.text.display import plural, share

GROWTH, MOST = 1.25, 20_000  # how many more documents are tried, and where it ends


def why_none(
    chances: NDArray[np.float64], right: NDArray[np.bool_], error: float, level: float
) -> str:
    """Say why no threshold passed for N documents, and what would help, in a sentence or two."""
    count, least = len(right), documents_needed(error, level)
    if count < least:
        return f"{plural(count, 'document')}, and at least {least:,} are needed, none of them wrong"
    surest = right[np.argsort(-chances, kind="stable")]
    wrong = int((~surest[:least]).sum())
    found = f"{share(wrong, least, 'surest document', ('is', 'are'))} wrong"
    enough = documents_for(surest, error, level)
    if enough is not None:
        return f"{found}; about {plural(enough, 'reviewed document')} would do"
    return (
        f"{found}, more than {error:.0%}, so more documents do not help: see whether gold is"
        " ambiguous, or train further"
    )


def documents_for(surest: NDArray[np.bool_], error: float, level: float) -> int | None:
    """Return about how many documents would pass, if all were like these, the surest first.

    A share of wrong answers is taken half an answer higher than it was seen. None if not even
    MOST would pass.
    """
    counts = np.arange(1, len(surest) + 1)
    shares = (np.cumsum(~surest) + 0.5) / (counts + 1)
    least = documents_needed(error, level)
    usable = [i for i in range(len(counts)) if shares[i] < error]
    documents = float(max(least, len(surest)))
    while usable and documents <= MOST:
        for i in usable:
            accepted = int(documents * counts[i] / len(surest))
            if accepted and p_value(round(shares[i] * accepted), accepted, error) <= level:
                return _two_digits(documents)
        documents *= GROWTH
    return None


def _two_digits(number: float) -> int:
    """Round up to two digits: nothing here is more exact."""
    unit = 10 ** max(len(str(int(number))) - 2, 0)
    return int(-(-number // unit) * unit)
