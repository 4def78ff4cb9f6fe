"""The option `--quantize` of commands that have a model answer: the bits to load its base in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from offapi.training.base_bits import Bits

NONE = "none"
CHOICES = ("2", "3", "4", "5", "6", "8", NONE)


def _read(_: click.Context, __: click.Parameter, given: str | None) -> Bits:
    """Return the bits, None for the base as it is stored, or the training's where none is named."""
    if given is None:
        return "trained"
    return None if given == NONE else int(given)


quantize_option = click.option(
    "--quantize",
    "bits",
    type=click.Choice(CHOICES),
    callback=_read,
    metavar="BITS",
    help="Bits to load the base model in: 4, 8, on MLX also 2, 3, 5 or 6; none: as it is stored."
    "  [default: those that the adapter was trained on]",
)
