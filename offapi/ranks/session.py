"""Ranks from their meeting to their end: addresses, versions, signals, and who leads.

Left out: starting the processes again after a rank was lost; the run is resumed instead.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

from offapi import __version__
from offapi import backend as backends
from offapi.constrain import Constraints
from offapi.errors import ConfigError, RunError
from offapi.launch import Launch, find_launch
from offapi.network import guard
from offapi.ranks.member import Member
from offapi.ranks.ranked_backend import Crew
from offapi.ranks.ranks import Ranks

LAUNCHERS = {"torch": "torchrun", "mlx": "mlx.launch"}


def launch_for(backend: str | None) -> Launch | None:
    """Return this process's launch; None where it is alone.

    Raise ConfigError where the launcher is not that of `backend`.
    """
    launch = find_launch()
    if launch is not None and backend not in (None, launch.backend):
        other = LAUNCHERS.get(str(backend), "another launcher")
        raise ConfigError(
            f"{LAUNCHERS[launch.backend]} starts ranks of the {launch.backend} backend, not of"
            f" {backend}.",
            where="--backend",
            next_step=f"Use --backend {launch.backend}, or start it with {other}.",
        )
    return launch


@contextmanager
def joined(launch: Launch, bounds: Callable[[], Constraints]) -> Iterator[Member]:
    """Be one of the ranks in the block; where this is not rank 0, `follow` it there.

    Only rank 0 counts the addresses in the guard's report.
    """
    package = backends.find(launch.backend).__module__.rpartition(".")[0]
    ranks = Ranks(import_module(f"{package}.ranks").Link(launch))
    with ExitStack() as stack:
        for host, port in launch.addresses:
            stack.enter_context(guard.allow(host, port))
            if launch.rank == 0:
                guard.count(("opened", host, port, 1))  # in C, where the guard does not see it
        stack.enter_context(signals(leads=launch.rank == 0))
        ranks.join()
        versions = {data.decode() for data in ranks.gather(__version__.encode())}
        if len(versions) > 1:
            raise RunError(
                f"the ranks have offapi {' and '.join(sorted(versions))}.",
                next_step="Install the same version on each machine.",
            )
        yield Member(ranks, bounds)


@contextmanager
def leading(member: Member) -> Iterator[Crew]:
    """Lead the other ranks in the block, and let them go after it."""
    crew = Crew(member)
    try:
        yield crew
    finally:
        crew.end()


@contextmanager
def signals(*, leads: bool) -> Iterator[None]:
    """Leave the first Ctrl-C or SIGTERM to rank 0, which ends its run; launchers send several."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    handlers = {
        signal.SIGINT: interrupt if leads else signal.SIG_IGN,
        signal.SIGTERM: interrupt if leads else signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is handlers[number]:  # not after an interrupt
                signal.signal(number, handler)
