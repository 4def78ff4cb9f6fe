"""The time that is left: from the steady pace, never from the start or the first of a batch."""

from __future__ import annotations

import pytest

from offapi.progress import TimeLeft


def shown(total: int | None, results: list[tuple[float, int]], start: float = 0.0) -> list[float]:
    """Return the estimates after each of the results (time, count done), those that there are."""
    left = TimeLeft(total, start)
    estimates = []
    for now, done in results:
        left.count(done, now)
        seconds = left.seconds(now)
        estimates += [] if seconds is None else [seconds]
    return estimates


def test_a_slow_start_is_not_part_of_the_pace() -> None:
    results = [(60.0 + 2.0 * i, i + 1) for i in range(20)]
    estimates = shown(20, results)
    assert 0 < len(estimates) < 18
    assert estimates[0] == pytest.approx(2.0 * len(estimates) - 2.0)
    assert estimates[-1] == 0.0


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_the_first_of_a_batch_tells_nothing(spread: float) -> None:
    """Sixteen answers end together every 45 s: 60 documents take four batches."""
    results = [(45.0 * (1 + i // 16) + spread * (i % 16), i + 1) for i in range(60)]
    said = 0
    for now, done in results:
        left = TimeLeft(60, 0.0)
        for time, count in results[:done]:
            left.count(count, time)
        seconds = left.seconds(now)
        if done < 17:
            assert seconds is None
        elif seconds is not None:
            said += 1
            true = results[-1][0] - now
            assert seconds == pytest.approx(true, abs=46.0)
    assert said > 40


def test_batches_that_are_reported_whole_count_whole() -> None:
    results = [(10.0 + 30.0 * i, 16 * (i + 1)) for i in range(10)]
    assert shown(160, results)[-2] == pytest.approx(30.0)


def test_nothing_is_said_before_three_items_or_a_twentieth() -> None:
    steps = [(30.0 * (i + 1), i + 1) for i in range(16)]
    assert len(shown(16, steps)) == 14  # from the third on, also with long steps
    quick = [(0.001 * (i + 1), i + 1) for i in range(1000)]
    assert len(shown(1000, quick)) == 951
    assert shown(None, quick) == []
    assert shown(1000, quick[:2]) == []


def test_a_long_run_need_not_reach_a_twentieth() -> None:
    steps = [(30.0 * (i + 1), i + 1) for i in range(5)]
    assert shown(1000, steps) == pytest.approx([29_910.0, 29_880.0, 29_850.0])


def test_what_was_done_before_is_not_counted_again() -> None:
    resumed = [(5.0 + i, 501 + i) for i in range(10)]
    assert shown(1000, resumed)[-1] == pytest.approx(490.0)


def test_the_time_left_falls_between_two_results() -> None:
    left = TimeLeft(10, 0.0)
    for i in range(4):
        left.count(i + 1, 10.0 * (i + 1))
    assert left.seconds(40.0) == pytest.approx(60.0)
    assert left.seconds(47.0) == pytest.approx(53.0)
    assert left.seconds(400.0) == 0.0
