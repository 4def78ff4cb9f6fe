"""`offapi train`: run a recipe, resumable at any point."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click
import orjson

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options
from offapi.errors import ConfigError, nearest

if TYPE_CHECKING:
    from offapi.evaluation.accuracy import Report
    from offapi.training.run import Run

RECIPES = ("sft", "distill", "filtered_sft", "grpo")
MAY_CHANGE = (
    "allow",
    "workers",
    "reward_seconds",
)  # when a run is resumed: nothing it makes depends on them


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
    from offapi.backend import find as find_backend
    from offapi.chat.chat import IN_FRONT
    from offapi.config import load as configs
    from offapi.training.run import Run

    module = find(recipe)
    more = [f"allow={orjson.dumps(allow).decode()}"] if allow else []
    more += [f"rollouts={orjson.dumps(str(rollouts.absolute())).decode()}"] if rollouts else []
    config = configs.load(recipe, module.Config, (*overrides, *more))
    name = backend or default_backend()
    find_backend(name)
    inputs = module.prepare(config, output)
    if inputs.chat.no_system:
        output.say(IN_FRONT)
    manifest = describe(config)
    if resume:
        run = Run.open(config.out / config.name)
    else:
        run = Run.create(config.out, config.name, {**manifest, "backend": name})
    try:
        with run.lock():
            if resume:
                run.resume(with_its_limits(manifest, run))
            report: Report | None = module.run(config, inputs, name, run, output, resume)
    except Exception:
        if not resume:
            _remove_empty(run.path)
        raise
    output.say(f"Everything is in {run.path}; the adapter is {run.path / 'adapter'}.")
    if report is not None:
        output.table(("field", "right, with 95% interval"), report.table())
    output.result({"run": str(run.path), "report": report.as_dict() if report else None})


def with_its_limits(manifest: dict[str, Any], run: Run) -> dict[str, Any]:
    """`manifest` with the limits that `run` began with:
    one that ran out of memory goes on with lower ones.
    """
    limits = run.manifest.get("config", {}).get("limits")
    return {**manifest, "config": {**manifest["config"], "limits": limits}}


def _remove_empty(run: Path) -> None:
    """Remove a new run that came to nothing, as on a
    full disk: there is nothing in it to go on from.
    """
    from offapi.training.run import LOCK, MANIFEST

    if {path.name for path in run.rglob("*") if path.is_file() and path.stat().st_size} <= {
        MANIFEST,
        LOCK,
    }:
        shutil.rmtree(run, ignore_errors=True)


def find(recipe: Path) -> ModuleType:
    """The recipe module that the file's key `recipe` names."""
    from offapi.config import load as configs

    name = configs.peek(recipe, "recipe")
    if name not in RECIPES:
        what = f"recipe = {name!r} is not a recipe." if name else "the key 'recipe' is missing."
        raise ConfigError(what, where=str(recipe), next_step=nearest(str(name), RECIPES))
    return import_module(f"offapi.recipes.{name}")


def describe(config: Any) -> dict[str, Any]:
    """What the result depends on, for the manifest: the
    recipe as resolved, and the hashes of what it reads.
    """
    from offapi.config import load as configs
    from offapi.models.lock import LOCK
    from offapi.models.store import get

    folder = get(config.model).path
    lock = folder / LOCK  # of a model in the store, instead of all its bytes
    reads = {**config.reads(), "model": lock if lock.is_file() else folder}
    resolved = {
        key: value for key, value in configs.resolved(config).items() if key not in MAY_CHANGE
    }
    return {"config": resolved, "sha256": {name: _hash(path) for name, path in reads.items()}}


def _hash(path: Path) -> str:
    """Hash a file or folder and its name. Raises ConfigError when it cannot be read."""
    from offapi.files.hashing import sha256_named

    try:
        return sha256_named(path)
    except OSError as error:
        step = "Check the path; relative ones are relative to the recipe file."
        raise ConfigError(
            f"cannot be read: {error.strerror}.", where=str(path), next_step=step
        ) from None
