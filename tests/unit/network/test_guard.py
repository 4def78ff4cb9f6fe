"""The network guard: what it refuses, what it allows, and what only a namespace catches."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from offapi import cli
from offapi.errors import NetworkBlocked
from offapi.network import guard

OUTSIDE = "192.0.2.1"  # TEST-NET-1 (RFC 5737): nobody's


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "connect": lambda: socket.create_connection((OUTSIDE, 80), timeout=1),
    "connect_ex": lambda: socket.socket().connect_ex((OUTSIDE, 80)),
    "connect ipv6": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    "connect any": lambda: socket.socket().connect(("0.0.0.0", 80)),
    "connect mapped": lambda: socket.socket(socket.AF_INET6).connect((f"::ffff:{OUTSIDE}", 80)),
    "getaddrinfo": lambda: socket.getaddrinfo("example.org", 80),
    "getaddrinfo bytes": lambda: socket.getaddrinfo(b"example.org", 80),
    "gethostbyname": lambda: socket.gethostbyname("example.org"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("example.org"),
    "gethostbyaddr": lambda: socket.gethostbyaddr(OUTSIDE),
    "getnameinfo": lambda: socket.getnameinfo((OUTSIDE, 80), 0),
    "sendto": lambda: udp().sendto(b"x", (OUTSIDE, 53)),
    "sendmsg": lambda: udp().sendmsg([b"x"], [], 0, (OUTSIDE, 53)),
    "lookalike": lambda: socket.getaddrinfo("localhost.example.org", 80),
    "number": lambda: socket.getaddrinfo("127.1.example.org", 80),
    "brackets": lambda: socket.getaddrinfo("[::1]", 80),
}


@pytest.fixture
def server() -> Iterator[int]:
    """A server on loopback that answers every connection with `hello`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"hello")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_is_refused_named_and_counted(name: str) -> None:
    before = sum(entry["count"] for entry in guard.report()["refused"])
    with pytest.raises(NetworkBlocked) as caught:
        ATTEMPTS[name]()
    assert __file__ in caught.value.what, "the caller is named"
    assert "offapi label --teacher" in caught.value.next_step
    assert sum(entry["count"] for entry in guard.report()["refused"]) == before + 1


def test_the_caller_is_outside_the_standard_library() -> None:
    import urllib.request

    with pytest.raises(OSError, match=Path(__file__).name):
        urllib.request.urlopen("http://example.org", timeout=1)


def test_a_refusal_is_a_permission_error() -> None:
    assert socket.getfqdn("example.org") == "example.org"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_free(server: int, host: str) -> None:
    with socket.create_connection((host, server), timeout=5) as connection:
        assert connection.recv(5) == b"hello"
    socket.getaddrinfo("::1", 80)
    socket.getaddrinfo(None, 0)


def test_unix_sockets_are_free(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as connection:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        connection.connect(str(tmp_path / "s"))


def test_a_hole_is_for_one_host_and_port_and_recorded() -> None:
    with guard.allow(OUTSIDE, 8000):
        socket.getaddrinfo(OUTSIDE, 8000)
        for host, port in ((OUTSIDE, 8001), ("192.0.2.2", 8000)):
            with pytest.raises(NetworkBlocked):
                socket.getaddrinfo(host, port)
        refused = sum(entry["count"] for entry in guard.report()["refused"])
        with udp() as connection:
            connection.connect((OUTSIDE, 8000))  # UDP: sends nothing
    assert {"host": OUTSIDE, "port": 8000, "connections": 1} in guard.report()["opened"]
    assert sum(entry["count"] for entry in guard.report()["refused"]) == refused
    with pytest.raises(NetworkBlocked):
        socket.getaddrinfo(OUTSIDE, 8000)


def test_a_hole_for_a_name_lets_its_addresses_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str, port: int, *_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (OUTSIDE, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with udp() as connection:
        with guard.allow("Teacher.example", 8000):
            connection.connect((OUTSIDE, 8000))
            with pytest.raises(NetworkBlocked):
                connection.connect(("192.0.2.9", 8000))
            with pytest.raises(NetworkBlocked):
                connection.connect((OUTSIDE, 8001))
        with pytest.raises(NetworkBlocked):
            connection.connect((OUTSIDE, 8000))


def test_the_hole_closes_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), guard.allow(OUTSIDE, 8000):
        raise ZeroDivisionError
    with pytest.raises(NetworkBlocked):
        socket.getaddrinfo(OUTSIDE, 8000)


def test_working_tries_it_and_does_not_count() -> None:
    before = guard.report()
    assert guard.working()
    assert guard.report() == before


def test_importing_offapi_sets_the_switches() -> None:
    script = (
        "import os, huggingface_hub.constants as early\nimport offapi\nfrom offapi.network import"
        " guard as offline\nassert early.HF_HUB_OFFLINE and"
        " early.HF_HUB_DISABLE_TELEMETRY\nprint(all(os.environ[name] == value for name, value in"
        " offline.SWITCHES.items()))"
    )
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "0",
        "DO_NOT_TRACK": "0",
        "TRANSFORMERS_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "True\n", done.stderr


def test_importing_offapi_drops_every_proxy() -> None:
    script = "import os, urllib.request, offapi\n"
    script += "print(sorted(name for name in os.environ if name.lower().endswith('_proxy')))\n"
    script += "print(urllib.request.proxy_bypass('example.org'), end='')"
    proxies = ("http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy", "Ftp_Proxy")
    environment = {**os.environ, **dict.fromkeys(proxies, "http://127.0.0.1:9"), "no_proxy": "x"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["['NO_PROXY', 'no_proxy']", "True"], done.stderr


STARTS: dict[str, Callable[[], object]] = {
    "subprocess": lambda: subprocess.run(["true", "secret"], check=True),
    "shell": lambda: subprocess.run("true secret", shell=True, check=True),
    "os.system": lambda: os.system("true secret"),
    "posix_spawn": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true", "secret"], {}), 0),
}


@pytest.mark.parametrize("way", STARTS)
def test_a_started_program_is_counted_by_its_name_alone(way: str) -> None:
    def of_this_file() -> Counter[str]:
        mine = [one for one in guard.report()["started"] if __file__ in one["caller"]]
        assert not any(one["expected"] for one in mine)
        assert "secret" not in str(mine)
        counts: Counter[str] = Counter()
        for one in mine:
            counts[one["program"]] += one["count"]
        return counts

    program = {"shell": "/bin/sh", "posix_spawn": "/bin/true"}.get(way, "true")
    before = of_this_file()[program]
    STARTS[way]()
    assert of_this_file()[program] == before + 1


def test_a_program_that_a_known_library_starts_is_expected() -> None:
    guard.count(("started", "/sbin/ldconfig", "torch.somewhere (torch/x.py:1)", 1))
    guard.count(("started", "curl", "torchless (x.py:1)", 1))
    expected = {one["program"]: one["expected"] for one in guard.report()["started"]}
    assert (expected["/sbin/ldconfig"], expected["curl"]) == (True, False)


def test_a_namespace_stops_what_the_guard_cannot_see() -> None:
    """ctypes bypasses the hook, as documented; the empty network namespace still stops it."""
    raw = (
        "import ctypes, socket, struct\nimport offapi\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "fd = libc.socket(2, 2, 0)\n"  # UDP: connecting sends nothing, but needs a route
        "address = struct.pack('=H', 2) + struct.pack('!H', 80) + socket.inet_aton('192.0.2.1') +"
        " bytes(8)\n"
        "print(libc.connect(fd, address, 16), ctypes.get_errno())"
    )
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode
    ):
        pytest.skip("unshare -rn is not installed or not permitted here")
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", raw], capture_output=True, text=True
    )
    assert done.stdout.split() == ["-1", "101"], done.stderr  # ENETUNREACH


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ("import socket\nsocket.create_connection((WHERE, 80), 5)", "network"),
        (
            (
                "import urllib.request\nurllib.request.urlopen(f'http://{WHERE}/schema.json',"
                " timeout=5)"
            ),
            "network",
        ),
        (
            (
                "try:\n    __import__('socket').create_connection((WHERE, 80), 5)\nexcept OSError:"
                " undefined"
            ),
            "config",
        ),
    ],
)
def test_a_task_file_that_uses_the_network_is_refused(
    tmp_path: Path, ask: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task.py").write_text(f"WHERE = {OUTSIDE!r}\n{ask}\n")
    (tmp_path / "d.jsonl").write_text('{"id": "1", "document": "x"}\n')
    asked = [
        "label",
        f"--task={tmp_path}/task.py",
        f"--data={tmp_path}/d.jsonl",
        "--teacher=recorded",
    ]
    assert cli.run([*asked, f"--out={tmp_path}/o.jsonl", "--json"]) == (
        1 if code == "network" else 2
    )
    shown = json.loads(capsys.readouterr().err)
    assert shown["code"] == code
    assert f"task.py, line {3 if code == 'network' else 4}: " in shown["message"]
    assert (f"the network guard refused {OUTSIDE}:80" in shown["message"]) is (code == "network")
    assert ("offapi works offline" in shown["next"]) is (code == "network")
