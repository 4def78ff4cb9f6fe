"""The network guard: importing offapi turns it on, for this process and the libraries in it.

A tripwire for accidents, not a sandbox: it sees what Python's own sockets do. Left out, because an
audit hook cannot see it: connections made in C, and other programs that are started (offapi's own
helper processes report what they tried, see `offapi.network.helper_log`). The proof that offapi
stays offline is its test in an empty network namespace.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Literal

from offapi.errors import NetworkBlocked

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "USE_HUB_KERNELS": "NO",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "offline",
}
ALLOWED_BY = (
    "offapi works offline; only `offapi label --teacher http://HOST:PORT/v1` connects, to that"
    " address alone."
)
PROBE = "offapi.invalid"  # what `working` looks up: a name that can never exist (RFC 6761)


@dataclass(frozen=True)
class Hole:
    """One address that may be reached while a teacher's endpoint is in use."""

    host: str
    port: int
    addresses: set[str] = field(
        default_factory=set, compare=False
    )  # what the host's name resolved to


Kind = Literal["refused", "opened"]
Attempt = tuple[
    Kind, str, str | int, int
]  # refused: target, caller; opened: host, port; and how often

_refused: Counter[tuple[str, str]] = Counter()  # (target, caller)
_opened: Counter[tuple[str, int]] = Counter()  # connections through the hole for (host, port)
_counting = RLock()
_keep: Callable[[Attempt], object] | None = None
_holes: tuple[Hole, ...] = ()
_installed = False


def install() -> None:
    """Set the offline switches and install the guard, once. There is no way to remove it."""
    global _installed
    os.environ.update(SWITCHES)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:  # imported earlier, so it has read its switches already
        hub.HF_HUB_OFFLINE = hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True


@contextmanager
def allow(host: str, port: int) -> Iterator[None]:
    """Let this process reach `host`:`port` inside the block.

    The hole and its use are part of `report`.
    """
    global _holes
    hole = Hole(host.lower().strip("[]"), port)
    if (hole.host, hole.port) not in _opened:
        count(("opened", hole.host, hole.port, 0))
    _holes = (*_holes, hole)
    try:
        yield
    finally:
        rest = list(_holes)
        rest.remove(hole)
        _holes = tuple(rest)


def report() -> dict[str, Any]:
    """Network attempts so far, of this process and
    of helpers that have ended, for a run's manifest.
    """
    with _counting:
        refused = [
            {"target": target, "caller": caller, "count": n}
            for (target, caller), n in _refused.items()
        ]
        opened = [
            {"host": host, "port": port, "connections": n} for (host, port), n in _opened.items()
        ]
    return {"guard": _installed, "refused": refused, "opened": opened}


def count(attempt: Attempt) -> None:
    """Make `attempt`, perhaps a helper process's, part of `report`."""
    kind, target, by, n = attempt
    counter: Counter[Any] = _opened if kind == "opened" else _refused
    with _counting:
        counter[target, by] += n
    if _keep is not None:
        _keep(attempt)


def keep(how: Callable[[Attempt], object]) -> None:
    """Have every attempt from now on given to `how` too, before it is made."""
    global _keep
    _keep = how


def working() -> bool:
    """Whether the guard really refuses, tried with a look-up of a name that cannot exist.

    Not counted in `report`.
    """
    import socket

    try:
        socket.getaddrinfo(PROBE, 443)
    except NetworkBlocked:
        return True
    except OSError:
        return False
    return False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    reader = _TARGETS.get(event)
    if reader is None:
        return
    target = reader(arguments)
    if target is not None:
        _judge(event, *target)


def _of_socket(arguments: tuple[Any, ...]) -> tuple[Any, Any] | None:
    import socket

    family, address = arguments[0].family, arguments[1]
    if (
        family == getattr(socket, "AF_UNIX", None) or address is None
    ):  # None: sendmsg on a connected socket
        return None
    if family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
        return address[0], address[1]
    return f"{address!r} ({family!r})", None


_TARGETS: Mapping[str, Any] = {
    "socket.connect": _of_socket,
    "socket.sendto": _of_socket,
    "socket.sendmsg": _of_socket,
    "socket.getaddrinfo": lambda arguments: (
        (arguments[0], arguments[1]) if arguments[0] else None
    ),  # none: wildcard
    "socket.gethostbyname": lambda arguments: (arguments[0], None),
    "socket.gethostbyaddr": lambda arguments: (arguments[0], None),
    "socket.getnameinfo": lambda arguments: (arguments[0][0], arguments[0][1]),
}


def _judge(event: str, host: Any, port: Any) -> None:
    """Return when the target may be reached, else count it and raise NetworkBlocked."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)
    connects = event == "socket.connect"
    for hole in _holes:  # one for this machine is counted too
        if _through(hole, name.lower(), port, connects):
            if connects:
                count(("opened", hole.host, hole.port, 1))
            return
    if _loopback(name):
        return
    target = name if port is None else f"{name}:{port}"
    caller = _caller()
    if name != PROBE:
        count(("refused", target, caller, 1))
    raise NetworkBlocked(
        f"the network guard refused {target}, asked for by {caller}.", next_step=ALLOWED_BY
    )


def _loopback(name: str) -> bool:
    from offapi.network.addresses import on_this_machine

    return "[" not in name and on_this_machine(name)  # a resolver takes "[::1]" for a name


def _through(hole: Hole, name: str, port: Any, connects: bool) -> bool:
    """Whether `name` is the hole's host, or an address its name resolves to, at its port."""
    if port is not None and str(port) != str(hole.port):
        return False
    if name == hole.host or name in hole.addresses:
        return True
    perhaps = not _loopback(name) or _loopback(hole.host)  # else only the port is the same
    if connects and perhaps:  # names with many addresses answer with others each time: ask again
        import socket

        with suppress(OSError):
            hole.addresses.update(
                str(entry[4][0]) for entry in socket.getaddrinfo(hole.host, hole.port)
            )
    return name in hole.addresses


def _caller() -> str:
    """`module (file:line)` of the first frame outside the standard library and this module."""
    import sysconfig

    library = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
    frame: Any = sys._getframe(1)
    last = frame
    while frame is not None:
        file = frame.f_code.co_filename
        standard = file.startswith(("<frozen", *library)) and "-packages" not in file
        if file != __file__ and not standard:
            return f"{frame.f_globals.get('__name__', '?')} ({file}:{frame.f_lineno})"
        last, frame = frame, frame.f_back
    return f"the standard library ({last.f_code.co_filename}:{last.f_lineno})"
