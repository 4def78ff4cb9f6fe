"""Tests whether an address is on this machine or this network, by its spelling alone.

No name is looked up: a look-up would already leave the machine.
"""

from __future__ import annotations

import ipaddress

NETWORKS = (
    "127.0.0.0/8 ::1/128"  # loopback
    " 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7"  # private: RFC 1918, RFC 4193
    " 169.254.0.0/16 fe80::/10"  # link-local
)
LOCAL_NAMES = ("localhost", "local", "lan", "internal")  # the name itself, or its last label
_NETWORKS = tuple(map(ipaddress.ip_network, NETWORKS.split()))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def on_this_machine(host: str) -> bool:
    """Return whether `host` is a loopback address or `localhost`."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def on_this_network(host: str) -> bool:
    """Return whether `host` is a loopback, private or link-local address, or a local name.

    Anything else counts as remote, including odd spellings of an address, which a resolver may
    read differently.
    """
    address = _address(host)
    if address is None:
        return host.lower().removesuffix(".").rsplit(".", 1)[-1] in LOCAL_NAMES
    return any(address in network for network in _NETWORKS if network.version == address.version)


def _address(host: str) -> Address | None:
    """Return the address that `host` spells, with or without a URL's brackets; None for a name.

    An IPv4 address written as IPv6 becomes the IPv4 address.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
