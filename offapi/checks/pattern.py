"""Check: a text has the form a regular expression asks for."""

from __future__ import annotations

import re
from typing import Any

from offapi.checks.fields import each
from offapi.checks.verdict import Check
from offapi.errors import ConfigError


def pattern(field: str, regex: str) -> Check:
    """A check: the share of the texts at `field` that `regex` matches from end to end."""
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise ConfigError(
            f"{regex!r} is no regular expression: {error}.", next_step="See Python's module re."
        ) from None

    def test(value: Any) -> str:
        right = isinstance(value, str) and compiled.fullmatch(value) is not None
        return "" if right else f"{value!r} does not match {regex}"

    return each(field, test)
