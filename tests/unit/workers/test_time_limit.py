"""The time limit of an answer's checks."""

from __future__ import annotations

import signal
import time

from offapi.workers import time_limit


def spin(seconds: float, limit_seconds: float) -> float | None:
    """Return when the alarm rang in an answer that takes `seconds`, or None."""
    start = time.monotonic()
    assert time_limit.start(limit_seconds)
    try:
        while time.monotonic() < start + seconds:
            pass
    except time_limit.TimeUp:
        return time.monotonic() - start
    finally:
        time_limit.stop()
    return None


def test_each_of_many_answers_has_all_its_time() -> None:
    assert [spin(0.1, 0.25) for _ in range(4)] == [None] * 4, (
        "the first one's alarm rings in the third"
    )
    for seconds in (0.25, 0.1, 0.4):
        rang = spin(2, seconds)
        assert rang is not None
        assert seconds <= rang < seconds + 0.3
    assert spin(0.05, 0.1) is None
    time.sleep(0.2)  # no alarm rings between answers
    assert spin(0.02, 5.0) is None
    assert spin(2, 0.1) is not None, "an alarm that would ring too late is not waited for"


def test_an_alarm_that_is_set_stays_as_it_is() -> None:
    assert time_limit.start(5.0)
    assert not time_limit.start(0.01)
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    time_limit.stop()
    assert 4.0 < left <= 5.0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_without_a_limit_no_alarm_is_set() -> None:
    assert not time_limit.start(None)
    assert not time_limit.start(0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
