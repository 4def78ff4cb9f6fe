"""Numbers as people type and read them: 50k, 1.5M, 50,000.

Left out: decimal commas, since 1,500 could be read in two ways.
"""

from __future__ import annotations

import math
import re

SCALES = {"": 1, "k": 1_000, "m": 1_000_000}
_GROUPED = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")


def read_amount(text: str) -> float:
    """Return the number that `text` spells. Raise ValueError if it spells none."""
    text = text.strip().lower()
    scale = text[-1:] if text[-1:] in SCALES else ""
    digits = text.removesuffix(scale).rstrip()
    if _GROUPED.fullmatch(digits):
        digits = digits.replace(",", "")
    return float(digits) * SCALES[scale]


def round_amount(value: float, digits: int = 2) -> float:
    """Return `value` with so many significant digits."""
    if not value:
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
