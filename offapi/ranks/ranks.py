"""The ranks of a launch, behind one clock: no rank waits for another without end.

A library's group waits in C, where neither Ctrl-C nor a time limit reaches it. So each call is made
in a thread, and the main thread waits for it. Left out: what is said, see `messages`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from offapi.errors import RunError
from offapi.launch import RESUME, RankLink
from offapi.text.display import duration

JOIN_SECONDS = 300.0  # until all ranks have been started
ANSWER_SECONDS = 1800.0  # by which one rank's share may take longer than another's

T = TypeVar("T")


class Ranks:
    """The ranks of a launch, this one among them."""

    def __init__(self, link: RankLink) -> None:
        self.rank, self.size, self._link = link.rank, link.size, link
        self._calls: SimpleQueue[tuple[Callable[[], object], Future[object]]] = SimpleQueue()
        # A daemon: a call that never returns must not keep the process.
        Thread(target=self._make_calls, daemon=True, name="ranks").start()

    def join(self) -> None:
        """Connect with the others. Raise RunError where they do not come."""
        self.in_time(self._link.join, JOIN_SECONDS)

    def broadcast(self, data: bytes = b"") -> bytes:
        """Return what rank 0 gives. The others wait as long as rank 0 lives."""
        seconds = None if self.rank else ANSWER_SECONDS
        return self.in_time(lambda: self._link.broadcast(data), seconds)

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each rank gives, in the order of ranks."""
        return self.in_time(lambda: self._link.gather(data))

    def in_time(self, call: Callable[[], T], seconds: float | None = ANSWER_SECONDS) -> T:
        """Return what `call`, which all ranks make, returns.

        Raise RunError where the others do not make it within `seconds`, or have ended.
        """
        done: Future[object] = Future()
        self._calls.put((call, done))
        try:
            return done.result(seconds)  # type: ignore[return-value]
        except TimeoutError:
            what = f"a rank did not answer within {duration(seconds or 0)}."
            raise RunError(what, where=self._name, next_step=RESUME) from None
        except RuntimeError as error:
            what = f"another rank has ended, or cannot be reached ({_first_line(error)})."
            raise RunError(what, where=self._name, next_step=RESUME) from error

    @property
    def _name(self) -> str:
        return f"rank {self.rank} of {self.size}"

    def _make_calls(self) -> None:
        while True:
            call, done = self._calls.get()
            try:
                done.set_result(call())
            except BaseException as error:
                done.set_exception(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
