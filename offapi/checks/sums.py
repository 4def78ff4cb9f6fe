"""Check: the parts add up to the total, within the answer.

Left out: prices times quantities, percentages.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.checks.fields import parse_field_path, values_at
from offapi.checks.verdict import Answer, Check, Context, Verdict, needs
from offapi.errors import ConfigError
from offapi.text.display import plural
from offapi.text.normalise import is_number

_SLACK = 1e-9  # a cent is not exact in binary


def adds_up(
    parts: Sequence[str] = ("lines[].amount", "delivery", "tax"),
    total: str = "total",
    tolerance: float = 0.01,
) -> Check:
    """Return a check: 1 when the numbers at the paths `parts` add up to the one at `total`, else 0.

    They may differ by `tolerance`. An absent or null part counts as 0. Without a total, or without
    any part, there is nothing to add up and the answer scores 1: the schema says whether they are
    required.
    """
    if isinstance(parts, str) or not parts or not tolerance >= 0:
        raise ConfigError(
            "adds_up needs a tuple of paths as `parts` and a `tolerance` of 0 or more."
        )
    for path in (*parts, total):
        parse_field_path(path)

    @needs("object")
    def check(document: str, answer: Answer, context: Context) -> Verdict:
        if answer.value is None:
            return Verdict(0.0, answer.error)
        wanted = values_at(answer.value, total)
        addends = [value for path in parts for value in values_at(answer.value, path)]
        if not wanted or not addends:
            return Verdict(1.0, "nothing to add up")
        odd = next((value for value in (*wanted, *addends) if not is_number(value)), None)
        if odd is not None:
            return Verdict(0.0, f"{odd!r} is not a number")
        if len(wanted) > 1:
            return Verdict(0.0, f"at {total} there are {plural(len(wanted), 'total')}, not one")
        added = sum(addends)
        if abs(added - wanted[0]) <= tolerance + _SLACK:
            return Verdict(1.0, "the parts add up")
        return Verdict(0.0, f"the parts add up to {added:.2f}, not {wanted[0]:.2f}")

    return check
