"""Whether a row seems to contain personal data or secrets, for a warning.

Patterns that begin with plain text are many times faster, so their lookbehinds come after it. Left
out: finding all of it, or removing any.
"""

from __future__ import annotations

import re

PHONE = rb"""
    (?<![\w.,:/+-]) (?: \+\d{1,3}[ .-]?(?:\(0\))?\d{1,4}(?:[ .-]?\d{2,4}){2,4}
    | \(\d{2,5}\)[ ]?\d{3,4}[ -]?\d{3,5}
    | \d{3}[.-]\d{3}[.-]\d{4} | 0\d{2,4}[ /-]\d{3,4}[ ]?\d{3,4} ) (?![\w-])
"""
PATTERNS: dict[str, tuple[re.Pattern[bytes], ...]] = {
    "e-mail addresses": (re.compile(rb"@(?<=[\w+-]@)[\w-]{1,63}\.[a-zA-Z]{2}"),),
    "phone numbers": (re.compile(PHONE, re.VERBOSE),),
    "keys or tokens": (
        *(
            re.compile(rb"%b-(?<=\b%b-)[\w-]{16,}" % (start, start))
            for start in (b"sk", b"pk", b"rk")
        ),
        re.compile(rb"Bearer [\w.~+/-]{16,}"),
        re.compile(rb"AKIA[0-9A-Z]{16}\b"),
        re.compile(rb"gh[pousr]_\w{20,}"),
        re.compile(rb"-----BEGIN [A-Z ]{0,40}PRIVATE KEY"),
    ),
}


def personal_kinds(line: bytes) -> list[str]:
    """Return the kinds of personal data that seem to be in `line`."""
    kinds = []
    for kind, patterns in PATTERNS.items():
        if any(pattern.search(line) for pattern in patterns):
            kinds.append(kind)
    return kinds
