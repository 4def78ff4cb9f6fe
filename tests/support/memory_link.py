"""Ranks in threads of one process: a link that keeps what is said in a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier, Thread

from offapi.constrain import Constraints
from offapi.launch import Launch
from offapi.ranks.member import Member
from offapi.ranks.ranked_backend import Crew
from offapi.ranks.ranks import Ranks
from offapi.ranks.session import leading


class Said:
    """What the ranks have said in this round."""

    def __init__(self, size: int) -> None:
        self.parts = [b""] * size
        self.barrier = Barrier(size)


class MemoryLink:
    """One rank's end."""

    def __init__(self, launch: Launch, said: Said) -> None:
        self.rank, self.size, self._said = launch.rank, launch.size, said

    def join(self) -> None:
        self._said.barrier.wait()

    def broadcast(self, data: bytes) -> bytes:
        return self.gather(data)[0]

    def gather(self, data: bytes) -> list[bytes]:
        self._said.parts[self.rank] = data
        self._said.barrier.wait()
        parts = list(self._said.parts)
        self._said.barrier.wait()
        return parts


def no_bounds() -> Constraints:
    raise AssertionError("nothing here is bound")


@contextmanager
def crew_of(
    size: int, bounds: Callable[[], Constraints] = no_bounds, member: type[Member] = Member
) -> Iterator[Crew]:
    """Lead `size` ranks, whose others are threads, in the block."""
    said = Said(size)
    members = [
        member(Ranks(MemoryLink(Launch("", rank, size), said)), bounds) for rank in range(size)
    ]
    threads = [Thread(target=each.follow, daemon=True) for each in members[1:]]
    for thread in threads:
        thread.start()
    with leading(members[0]) as crew:
        yield crew
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
