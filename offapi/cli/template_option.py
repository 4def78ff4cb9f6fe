"""The option `--template`, the same for every command that has a model answer."""

from __future__ import annotations

from typing import Any

import click


def _read(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings as in a recipe. Raise UsageError for one without a value."""
    from offapi.config.load import toml_value

    given_settings: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name.strip() or not equals:
            raise click.UsageError(f"--template must be KEY=VALUE, got {each!r}.")
        given_settings[name.strip()] = toml_value(value)
    return given_settings


template_option = click.option(
    "--template",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_read,
    help="Setting of the model's chat template, such as enable_thinking=false or"
    " date=2026-11-01 (repeatable).  [default: a run's own]",
)
