"""`offapi train`: run a recipe, resumable at any point."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options


@click.command(short_help="Train a model with a recipe.")
@click.argument("recipe", type=click.Path(path_type=Path))
@backend_option()
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key of the recipe."
)
@click.option(
    "--resume", is_flag=True, help="Go on with the run of that name from its last checkpoint."
)
@click.option(
    "--rollouts",
    type=click.Path(path_type=Path),
    help="Graded traces for the grpo recipe to learn offline.",
)
@click.option(
    "--allow",
    metavar="GATE",
    multiple=True,
    help="Go on past a gate of the grpo recipe that failed.",
)
@options
def command(
    output: Output,
    *,
    recipe: Path,
    backend: str | None,
    overrides: tuple[str, ...],
    resume: bool,
    rollouts: Path | None,
    allow: tuple[str, ...],
) -> None:
    """Train a model with a recipe (TOML). Relative paths in it are relative to it.

    Ctrl-C or a crash loses at most the steps since the last checkpoint: run the same
    command with --resume.

    \b
    offapi train recipes/configs/distill.toml --backend mlx --set lr=5e-4
    """
    from offapi.backend import default_backend
    from offapi.training.recipe_run import run_recipe_file

    overrides += (f"allow={orjson.dumps(allow).decode()}",) if allow else ()
    if rollouts:
        overrides += (f"rollouts={orjson.dumps(str(rollouts.absolute())).decode()}",)
    name = backend or default_backend()
    run, report = run_recipe_file(recipe, overrides, name, output, resume=resume)
    output.say(f"Everything is in {run.path}; the adapter is {run.path / 'adapter'}.")
    if report is not None:
        output.table(("field", "right, with 95% interval"), report.table())
    output.result({"run": str(run.path), "report": report.as_dict() if report else None})
