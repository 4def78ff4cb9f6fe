"""A time limit for checks: an alarm that interrupts Python, set once for all checks of an answer.

It stops endless loops, waits and regular expressions. Left out, and so not limited: C code that
holds the interpreter, threads other than the main one, Windows, and processes whose alarm signal
is already in use.
"""

from __future__ import annotations

import functools
import signal
import threading
from types import FrameType


class TimeUp(BaseException):
    """The alarm. It is not an Exception, so that a check does not catch it as its own error."""


def start(seconds: float | None) -> bool:
    """Raise TimeUp here in `seconds` (None or 0: never).

    Return whether the alarm was set, in which case `stop` must be called.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        return False
    if not _listening():
        return False
    before, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    if before:  # this grade is part of another task's check, whose time counts
        signal.setitimer(signal.ITIMER_REAL, before)
    return not before


def stop() -> None:
    """Cancel the alarm."""
    signal.setitimer(signal.ITIMER_REAL, 0)


@functools.cache
def _listening() -> bool:
    """Take the alarm signal if it is free, and return whether it is ours. Cached for good."""
    ours = hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGALRM, _ring)
    return ours


def _ring(number: int, frame: FrameType | None) -> None:
    raise TimeUp
