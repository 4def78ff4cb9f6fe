"""The options --backend and --dtype, which several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

DEVICE_NAMES = ("cuda", "gpu", "cpu", "metal", "mps", "rocm", "nvidia", "apple")
DEVICES = (
    "A backend is a library: torch (which uses a CUDA GPU by itself where there is one) or mlx"
    " (Apple's GPU)."
)

dtype_option = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Number format of the model's weights. auto: bfloat16 on a GPU, float32 on the CPU.",
)


def backend_option(
    purpose: str = "Library to run the model with",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --backend, whose help starts with `purpose`. An unknown name is a usage error."""
    text = f"{purpose}: torch or mlx.  [default: mlx on Apple silicon, else torch]"
    return click.option("--backend", metavar="NAME", help=text, callback=_known)


def _known(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and not context.resilient_parsing:
        from offapi.backend import available
        from offapi.errors import nearest

        if name not in available():
            step = DEVICES if name.lower() in DEVICE_NAMES else nearest(name, available())
            raise click.BadParameter(f"unknown backend {name!r}. {step}")
    return name
