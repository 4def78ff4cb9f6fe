"""Whether a teacher is the user's own machine or network, told from its address alone.

No name is looked up here, so that nothing leaves the machine before the user agreed.
"""

from __future__ import annotations

import ipaddress

from offapi.errors import ConfigError

NETWORKS = tuple(
    ipaddress.ip_network(block)
    for block in (
        *("127.0.0.0/8", "::1/128"),  # loopback
        *(
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
        ),  # private: RFC 1918, RFC 4193
        *("169.254.0.0/16", "fe80::/10"),  # link-local
    )
)
LOCAL_NAMES = ("localhost", "local", "lan", "internal")  # the name itself, or its last label
WHY = (
    "most providers' terms forbid training other models on their answers, and your documents would"
    " leave this network."
)


def on_this_network(host: str) -> bool:
    """True for loopback, private and link-local addresses and names that only a local network has.

    Anything else counts as remote, also odd spellings
    of an address, which a resolver may read otherwise.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower().removesuffix(".").rsplit(".", 1)[-1] in LOCAL_NAMES
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in NETWORKS if network.version == address.version)


def require(host: str, checked: bool) -> None:
    """ConfigError for a remote `host` unless the user said that its terms were checked."""
    if checked or on_this_network(host):
        return
    raise ConfigError(
        f"the teacher at {host!r} is not on this machine or network: {WHY}",
        next_step="Read its terms; if they allow this use, add --teacher-terms-checked.",
    )
