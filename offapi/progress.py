"""What a long task reports to the person who waits for it; `Output` of the commands is one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

LOADING = "Loading the model ..."
LEAST_ITEMS, LEAST_SHARE = 3, 0.05  # done before the rest can be estimated
ENOUGH_SECONDS = 60.0  # of steady work, for which the share need not be reached


class Advance(Protocol):
    """A function that takes the number of units done so far, and a short note."""

    def __call__(self, done: int, note: str = "") -> None: ...


class Progress(Protocol):
    """A reporter: lines for a person, and the progress of counted work."""

    def say(self, text: str = "") -> None: ...

    def progress(self, title: str, total: int | None = None) -> AbstractContextManager[Advance]: ...


class TimeLeft:
    """How long counted work still takes, from its steady pace.

    The wait for the first result is not part of the pace: it includes the start. Results that come
    in batches are counted from the first of a batch to the first of a later one.
    """

    def __init__(self, total: int | None, now: float) -> None:
        self._total, self._started = total, now
        self._first: tuple[float, int] | None = None  # time and count of the first result
        self._batch = self._latest = (now, 0)  # the same of the batch's first result, and the last
        self._longest = 0.0  # seconds between two results after the first

    def count(self, done: int, now: float) -> None:
        """Note that `done` are done at the time `now`, in seconds."""
        if self._first is None:
            self._first = self._batch = (now, done)
        elif done > self._latest[1]:
            gap = now - self._latest[0]
            self._longest = max(self._longest, gap)
            if gap > self._longest / 3:
                self._batch = (now, done)
        self._latest = (now, done)

    def seconds(self, now: float) -> float | None:
        """Return the seconds left, None where that cannot be said yet."""
        if self._total is None or self._first is None:
            return None
        (first, start), (latest, done) = self._first, self._batch
        worked, items = latest - first, done - start
        few = done < LEAST_ITEMS or items < LEAST_ITEMS - 1
        early = done < LEAST_SHARE * self._total and worked < ENOUGH_SECONDS
        if few or early or worked < (first - self._started) / 5:
            return None
        return max(worked / items * (self._total - done) - (now - latest), 0.0)


def say_nothing(*values: object) -> None:
    """Ignore a report."""
    del values
