"""How long checks may take: an alarm that interrupts Python, set once for all checks of an answer.

It stops loops, waiting and regular expressions that never end. Left out: what holds the
interpreter in C, other threads than the main one, Windows, and processes whose alarm signal
is in use already; there nothing is limited.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn

_set = getattr(signal, "setitimer", None)
_armed = False


class TimeUp(BaseException):
    """The alarm. Not an Exception, so that a check does not mistake it for an error of its own."""


def start(seconds: float | None) -> bool:
    """Raise TimeUp here in `seconds` (None or 0: never); whether the alarm was set, and `stop` is due."""
    global _armed
    if not seconds or _armed or _set is None or threading.current_thread() is not threading.main_thread():
        return False
    if not _listening():
        return False
    _armed = True
    _set(signal.ITIMER_REAL, seconds)
    return True


def stop() -> None:
    """Take the alarm back."""
    global _armed
    _armed = False
    assert _set is not None
    _set(signal.ITIMER_REAL, 0)


def _listening() -> bool:
    """Whether the alarm signal is ours, taken now if it was nobody's."""
    global _ours
    if not _ours and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _ring)
        _ours = True
    return _ours


_ours = False


def _ring(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeUp
