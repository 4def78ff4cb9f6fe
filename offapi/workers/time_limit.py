"""How long checks may take: an alarm that interrupts Python, set once for all checks of an answer.

It stops loops, waiting and regular expressions that never end. Left out: what holds the
interpreter in C, other threads than the main one, Windows, and processes whose alarm signal
is in use already; there nothing is limited.
"""

from __future__ import annotations

import functools
import signal
import threading
from types import FrameType


class TimeUp(BaseException):
    """The alarm. Not an Exception, so that a check does not mistake it for an error of its own."""


def start(seconds: float | None) -> bool:
    """Raise TimeUp here in `seconds` (None or 0: never).

    Return whether the alarm was set, and `stop` is due.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        return False
    if not _listening():
        return False
    before, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    if before:  # another task's checks asked for this grade, and their time counts
        signal.setitimer(signal.ITIMER_REAL, before)
    return not before


def stop() -> None:
    """Take the alarm back."""
    signal.setitimer(signal.ITIMER_REAL, 0)


@functools.cache
def _listening() -> bool:
    """Take the alarm signal if it is nobody's; whether it is ours. The first answer decides."""
    ours = hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGALRM, _ring)
    return ours


def _ring(number: int, frame: FrameType | None) -> None:
    raise TimeUp
