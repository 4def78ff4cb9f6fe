"""The key that clients need, from the environment or a file that is its owner's alone.

Left out: comparing it (`offapi.serve.access`); a command line, which every user of the machine can
read.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

from offapi.errors import ConfigError
from offapi.network.addresses import on_this_machine

VARIABLE = "OFFAPI_SERVE_KEY"
FEWEST = 16  # characters
HOW = (
    f"Set {VARIABLE}, or write the key into a file of mode 0600 and give --key-file FILE; one can"
    " be made with: openssl rand -hex 24."
)


def read_key(file: Path | None, environment: MutableMapping[str, str] = os.environ) -> str | None:
    """Return the key, None if there is none, and take it out of the environment.

    Programs that the server starts do not get it. Raise ConfigError for a file that others can
    read, and for a key that is short or that a header cannot hold.
    """
    given = environment.pop(VARIABLE, None)
    if file is not None:
        given = _read_private(file)
    elif given is None:
        return None
    where = VARIABLE if file is None else str(file)
    key = given.strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError("the key has characters that a header cannot hold.", where=where)
    if len(key) < FEWEST:
        what = f"the key must have at least {FEWEST} characters, got {len(key)}."
        raise ConfigError(what, where=where, next_step=HOW)
    return key


def check_exposure(host: str, key: str | None) -> None:
    """Raise ConfigError for a server that others on the network can reach without a key."""
    if key is None and not on_this_machine(host):
        what = f"{host} can be reached from other machines, so clients need a key."
        raise ConfigError(what, where="--host", next_step=HOW)


def _read_private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096).decode("utf-8", "replace")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ConfigError(f"the key cannot be read: {why}.", where=str(path)) from None
    if mode & 0o077:
        step = f"Make it yours alone: chmod 600 {path}"
        raise ConfigError("others can read this file.", where=str(path), next_step=step)
    return text
