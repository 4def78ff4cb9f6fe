"""The address of an endpoint and its key, as options of a command name them."""

from __future__ import annotations

import os

import httpx2

from offapi.errors import ConfigError
from offapi.network.addresses import on_this_network

PORTS = {"http": 80, "https": 443}


def read_address(url: str, option: str, key_option: str) -> httpx2.URL:
    """Return the base `url` that `option` names; a key belongs into `key_option`'s variable.

    Raise ConfigError where it is not a URL of a host alone.
    """
    hint = "Write it as http://HOST:PORT/v1."
    try:
        address = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConfigError(
            f"the address is not a URL: {error}.", where=option, next_step=hint
        ) from None
    if address.scheme not in PORTS or not address.host or not 0 < port_of(address) < 65536:
        raise ConfigError(
            "the address has no host or an impossible port.", where=option, next_step=hint
        )
    if address.userinfo:
        hint = f"Put the key into an environment variable and name that in {key_option}."
        raise ConfigError(
            "a name or password in the address would be logged.", where=option, next_step=hint
        )
    if address.query or address.fragment:
        raise ConfigError("the address must not have a ? or # part.", where=option, next_step=hint)
    return address


def port_of(address: httpx2.URL) -> int:
    """Return the port that an address names or its scheme implies."""
    return PORTS[address.scheme] if address.port is None else address.port


def host_of(address: httpx2.URL) -> str:
    """Return the host as it will be looked up and connected to."""
    return address.raw_host.decode()


def refuse_plain_key(address: httpx2.URL, key: str | None, option: str) -> None:
    """Raise ConfigError where `key` would leave this network unencrypted."""
    if key and address.scheme == "http" and not on_this_network(host_of(address)):
        raise ConfigError(
            "the key would cross the internet unencrypted.",
            next_step=f"Use https:// in {option}.",
        )


def api_key_from(variable: str | None, option: str = "--api-key-env") -> str | None:
    """Return the API key in the environment variable of that name.

    Raise ConfigError, naming `option`, when it is missing or cannot be a header.
    """
    if variable is None:
        return None
    if not variable.isidentifier():
        raise ConfigError(
            "the value is not the name of a variable; do not paste the key itself.", where=option
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable!r} is not set.", where=option)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"the value of {variable!r} cannot be an API key.", where=option)
    return key
