"""Addresses of this machine and this network, known by their spelling."""

from __future__ import annotations

import pytest

from offapi.network.addresses import on_this_machine, on_this_network


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.20",
        ),
        *(
            "169.254.1.1",
            "fd12:3456::1",
            "fe80::1%25eth0",
            "::ffff:192.168.0.1",
            "localhost",
            "LOCALHOST",
        ),
        *("a.localhost", "mac-studio.local", "mac-studio.local.", "box.lan", "llm.corp.internal"),
    ],
)
def test_hosts_of_this_network(host: str) -> None:
    assert on_this_network(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::",
            "2606:4700::1",
        ),
        *(
            "::ffff:8.8.8.8",
            "127.1",
            "0x7f000001",
            "2130706433",
            "api.example.com",
            "gpu-box",
            "local.example.com",
        ),
        *("localhost.example.com", "127.0.0.1.example.com", "example.com.", "evillocal", ""),
    ],
)
def test_any_other_host_is_remote(host: str) -> None:
    assert not on_this_network(host)
    assert not on_this_machine(host)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.9", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_hosts_of_this_machine(host: str) -> None:
    assert on_this_machine(host)
    assert on_this_network(host)


@pytest.mark.parametrize("host", ["127.1", "10.0.0.1", "fe80::1", "a.localhost", "box.lan", ""])
def test_other_machines_are_not_this_one(host: str) -> None:
    assert not on_this_machine(host)
