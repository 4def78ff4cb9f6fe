"""How long checks may take: an alarm that interrupts Python, set once for all checks of an answer.

It stops loops, waiting and regular expressions that never end. Left out: what holds the
interpreter in C, other threads than the main one, Windows, and processes whose alarm signal
is in use already; there nothing is limited.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_set = getattr(signal, "setitimer", None)
_armed = False
_lasting = False
_due = _rings = (
    # monotonic seconds: when the answer's time is up, and when the alarm that was left set rings
    0.0
)


class TimeUp(BaseException):
    """The alarm. Not an Exception, so that a check does not mistake it for an error of its own."""


def start(seconds: float | None) -> bool:
    """Raise TimeUp here in `seconds` (None or 0: never);
    whether the alarm was set, and `stop` is due.
    """
    global _armed, _due, _rings
    if (
        not seconds
        or _armed
        or _set is None
        or threading.current_thread() is not threading.main_thread()
    ):
        return False
    if not _listening():
        return False
    _armed = True
    if _lasting:
        now = time.monotonic()
        _due = now + seconds
        if now < _rings <= _due:
            return True
        _rings = _due
    _set(signal.ITIMER_REAL, seconds)
    return True


def stop() -> None:
    """Take the alarm back."""
    global _armed
    _armed = False
    assert _set is not None
    if not _lasting:
        _set(signal.ITIMER_REAL, 0)


@contextmanager
def lasting() -> Iterator[None]:
    """For many answers: the alarm stays set between them, and
    is put off when it rings too soon for the one under way.

    That saves an answer two system calls. Within, the alarm is ours alone.
    """
    global _lasting, _rings
    _lasting = True
    try:
        yield
    finally:
        _lasting, _rings = False, 0.0
        if _set is not None and _ours:
            _set(signal.ITIMER_REAL, 0)


def _listening() -> bool:
    """Whether the alarm signal is ours, taken now if it was nobody's."""
    global _ours
    if not _ours and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _ring)
        _ours = True
    return _ours


_ours = False


def _ring(number: int, frame: FrameType | None) -> None:
    global _rings
    if _lasting:
        _rings = 0.0
        if not _armed:
            return
        left = _due - time.monotonic()
        if left > 0:
            assert _set is not None
            _rings = _due
            _set(signal.ITIMER_REAL, left)
            return
    raise TimeUp
