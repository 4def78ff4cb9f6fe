"""The network guard, which importing offapi turns on for this process and its libraries.

It is a tripwire for accidents, not a sandbox: it sees what Python's own sockets do, and counts the
programs that are started. Left out, because an audit hook cannot see it: connections made in C, and
what those programs do (offapi's own helper processes report their attempts, see
`offapi.network.helper_log`). The proof that offapi stays offline is its test in an empty network
namespace.
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
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",  # `ray start` reports being off, too
}
NO_PROXY = {"no_proxy": "*", "NO_PROXY": "*"}  # macOS has proxies outside the environment too
# Libraries that start programs by themselves: to find a compiler or the processor, Ray its own.
EXPECTED = (
    "torch",
    "triton",
    "mlx",
    "numpy",
    "scipy",
    "transformers",
    "psutil",
    "rich",
    "click",
    "ray",
)
ALLOWED_BY = (
    "offapi works offline. Only `offapi label --teacher http://HOST:PORT/v1` and `offapi serve"
    " --escalate http://HOST:PORT/v1` connect, and only to that address; ranks of `offapi train`"
    " connect with each other, where their launcher says."
)
PROBE = "offapi.invalid"  # the name that `working` looks up; it can never exist (RFC 6761)


@dataclass(frozen=True)
class Hole:
    """One address that may be reached while a teacher's endpoint is in use."""

    host: str
    port: int
    # The addresses to which the host's name resolved.
    addresses: set[str] = field(default_factory=set, compare=False)


Kind = Literal["refused", "opened", "started"]
# refused: target, caller, count; opened: host, port, count; started: program, caller, count
Attempt = tuple[Kind, str, str | int, int]

_refused: Counter[tuple[str, str]] = Counter()  # (target, caller)
_opened: Counter[tuple[str, int]] = Counter()  # connections through the hole, by (host, port)
_started: Counter[tuple[str, str]] = Counter()  # (program, caller)
_counting = RLock()
_keep: Callable[[Attempt], object] | None = None
_holes: tuple[Hole, ...] = ()
_installed = False


def install() -> None:
    """Set the offline switches, drop proxies, and install the guard, once. It cannot be removed."""
    global _installed
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ.update(SWITCHES | NO_PROXY)
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:  # it was imported earlier and has read its switches
        hub.HF_HUB_OFFLINE = hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True


@contextmanager
def allow(host: str, port: int) -> Iterator[None]:
    """Let this process reach `host`:`port` in the block; `report` lists the hole and its use."""
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
    """Return the network attempts of this process and of helpers that ended, for a manifest.

    `started` lists the programs that were started, which the guard cannot follow; one is `expected`
    where a library is known to start programs by itself.
    """
    with _counting:
        refused = [
            {"target": target, "caller": caller, "count": n}
            for (target, caller), n in _refused.items()
        ]
        opened = [
            {"host": host, "port": port, "connections": n} for (host, port), n in _opened.items()
        ]
        started = [
            {"program": name, "caller": by, "count": n, "expected": _expected(by)}
            for (name, by), n in _started.items()
        ]
    return {"guard": _installed, "refused": refused, "opened": opened, "started": started}


def count(attempt: Attempt) -> None:
    """Add `attempt`, which may be a helper process's, to `report`."""
    kind, target, by, n = attempt
    counters: dict[Kind, Counter[Any]] = {"opened": _opened, "started": _started}
    counter = counters.get(kind, _refused)
    with _counting:
        counter[target, by] += n
    if _keep is not None:
        _keep(attempt)


def keep(how: Callable[[Attempt], object]) -> None:
    """Pass every later attempt to `how` too, before it is made."""
    global _keep
    _keep = how


def working() -> bool:
    """Return whether the guard refuses the look-up of a name that cannot exist.

    The attempt is not counted in `report`.
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
        if event in _STARTS:
            _count_start(arguments)
        return
    target = reader(arguments)
    if target is not None:
        _judge(event, *target)


def _of_socket(arguments: tuple[Any, ...]) -> tuple[Any, Any] | None:
    import socket

    family, address = arguments[0].family, arguments[1]
    # The address is None for sendmsg on a connected socket.
    if family == getattr(socket, "AF_UNIX", None) or address is None:
        return None
    if family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
        return address[0], address[1]
    return f"{address!r} ({family!r})", None


_TARGETS: Mapping[str, Any] = {
    "socket.connect": _of_socket,
    "socket.sendto": _of_socket,
    "socket.sendmsg": _of_socket,
    "socket.getaddrinfo": lambda arguments: (
        (arguments[0], arguments[1]) if arguments[0] else None  # None: any address
    ),
    "socket.gethostbyname": lambda arguments: (arguments[0], None),
    "socket.gethostbyaddr": lambda arguments: (arguments[0], None),
    "socket.getnameinfo": lambda arguments: (arguments[0][0], arguments[0][1]),
}


# os.system has a command for a shell, the others a program and its arguments
_STARTS = frozenset(
    ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "pty.spawn", "os.startfile")
)


def _count_start(arguments: tuple[Any, ...]) -> None:
    """Count a program by its name alone: its arguments may hold documents."""
    caller = _caller()
    if not caller.startswith("offapi."):
        words = os.fsdecode(_first(arguments[0])).split() or ["?"]
        count(("started", words[0], caller, 1))


def _first(program: Any) -> str | bytes:
    if isinstance(program, list | tuple):  # of pty.spawn
        program = program[0] if program else "?"
    return program if isinstance(program, bytes) else str(program)


def _expected(caller: str) -> bool:
    return caller.split(" ", 1)[0].split(".", 1)[0] in EXPECTED


def _judge(event: str, host: Any, port: Any) -> None:
    """Return if the target may be reached; otherwise count it and raise NetworkBlocked."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)
    connects = event == "socket.connect"
    for hole in _holes:  # a hole for this machine is counted too
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
        f"the network guard refused {target}, requested by {caller}.", next_step=ALLOWED_BY
    )


def _loopback(name: str) -> bool:
    from offapi.network.addresses import on_this_machine

    return "[" not in name and on_this_machine(name)  # a resolver reads "[::1]" as a name


def _through(hole: Hole, name: str, port: Any, connects: bool) -> bool:
    """Return whether `name` is the hole's host, or an address of that host, at its port."""
    if port is not None and str(port) != str(hole.port):
        return False
    if name == hole.host or name in hole.addresses:
        return True
    perhaps = not _loopback(name) or _loopback(hole.host)  # otherwise only the port is the same
    if connects and perhaps:  # a name with many addresses returns others each time
        import socket

        with suppress(OSError):
            hole.addresses.update(
                str(entry[4][0]) for entry in socket.getaddrinfo(hole.host, hole.port)
            )
    return name in hole.addresses


def _caller() -> str:
    """Return `module (file:line)` of the first frame outside the standard library and this file."""
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
