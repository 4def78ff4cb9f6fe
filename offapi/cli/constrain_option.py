"""The option `--constrain`, the same for every command that has a model answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

LEVELS = ("off", "schema", "source", "register")  # those of offapi.constrain, which is not light


def constrain_option(default: str = "off") -> Callable[[Any], Any]:
    """Return the decorator that adds `--constrain`."""
    return click.option(
        "--constrain",
        type=click.Choice(LEVELS),
        default=default,
        show_default=True,
        help="What answers can be. schema: they fit the task's schema. source: and quoted fields, numbers"
        " and dates are printed in the document. register: and fields with a list are names of it.",
    )
