"""Counting the examples of a test that reach an assertion under a condition.

Such a test passes when no example meets the condition, and then says nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
_hits = 0


def hit() -> None:
    """Note that an example meets the condition."""
    global _hits
    _hits += 1


def at_least(count: int) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Fail the test, in front of its @given, where fewer than `count` examples call `hit`."""

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def counted(*arguments: P.args, **named: P.kwargs) -> None:
            before = _hits
            test(*arguments, **named)
            assert _hits - before >= count, f"{_hits - before} examples reach the assertion"

        return counted

    return decorate
