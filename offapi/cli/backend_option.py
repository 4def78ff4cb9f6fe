"""The option --backend, as several commands have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def backend_option(help: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --backend; a name that no backend has is a usage error.

    `help` goes before what all commands say.
    """
    said = f"{help} torch or mlx.  [default: what suits this machine]".lstrip()
    return click.option("--backend", help=said, callback=_known)


def _known(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and not context.resilient_parsing:
        from offapi.backend import available
        from offapi.errors import nearest

        if name not in available():
            raise click.BadParameter(f"unknown backend {name!r}. {nearest(name, available())}")
    return name
