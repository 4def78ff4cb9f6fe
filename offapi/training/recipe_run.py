"""Find a recipe and run it in a folder, from the beginning or from its last checkpoint.

Left out: flags and printing, which are the commands'.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from offapi.backend import require_installed
from offapi.chat.chat import IN_FRONT
from offapi.config import load as configs
from offapi.data import documents
from offapi.errors import ConfigError, DataError, nearest
from offapi.progress import Progress
from offapi.training.job import Job
from offapi.training.manifest import describe_run, with_limits_of
from offapi.training.run import CONSOLE, LOCK, MANIFEST, Run

DATA = ("data", "traces", "val")  # keys that may name a folder of documents
RECIPES = ("sft", "distill", "filtered_sft", "grpo")


def load_recipe(name: str) -> ModuleType:
    """Import a recipe: its `Config`, `prepare` and `run`."""
    return import_module(f"offapi.recipes.{name}")


def find_recipe(path: Path) -> ModuleType:
    """Import the recipe that the key `recipe` of the file at `path` names, or raise ConfigError."""
    name = configs.peek(path, "recipe")
    if name not in RECIPES:
        what = f"recipe = {name!r} is not a recipe." if name else "the key 'recipe' is missing."
        raise ConfigError(what, where=str(path), next_step=nearest(str(name), RECIPES))
    return load_recipe(name)


Keep = Callable[[Path], AbstractContextManager[object]]


def run_recipe_file(
    path: Path,
    overrides: Sequence[str],
    backend_name: str,
    progress: Progress,
    *,
    resume: bool,
    keep: Keep = nullcontext,
) -> tuple[Run, Any]:
    """Run the recipe file at `path`, or resume its run; return the run and the recipe's report.

    Everything is read and checked before the run's folder is made. `keep` returns the context in
    which what is said is kept in a file.
    """
    recipe = find_recipe(path)
    config = configs.load(path, recipe.Config, overrides)
    require_installed(backend_name)
    for name in DATA:
        _require_readable(getattr(config, name, None))
    inputs = recipe.prepare(config, progress)
    documents.say_left_out(progress, *(getattr(config, name, None) for name in DATA))
    if inputs.chat.no_system:
        progress.say(IN_FRONT)
    manifest = describe_run(config)
    if resume:
        folder = Run.open(config.out / config.name)
        manifest = with_limits_of(manifest, folder.manifest)
    else:
        begun = {**manifest, "backend": backend_name}
        folder = Run.create(config.out, config.name, begun)
    job = Job(
        config=config,
        inputs=inputs,
        backend_name=backend_name,
        folder=folder,
        progress=progress,
        resume=resume,
    )
    try:
        with folder.lock(), keep(folder.path / CONSOLE):
            if resume:
                folder.resume(manifest)
            return folder, recipe.run(job)
    except Exception:
        if not resume:
            _remove_empty(folder.path)
        raise


def _require_readable(path: Path | None) -> None:
    """Raise DataError for a missing file, before a library is imported that takes seconds."""
    if path is not None and not path.exists():
        step = "Check the path. Relative paths start at the folder of the recipe file."
        raise DataError.at("there is no such file or folder.", path=path, next_step=step)


@contextmanager
def hold_run(folder: Run, manifest: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Lock a run for one attempt; raise RunError when one to resume began with another manifest."""
    with folder.lock():
        if resume:
            folder.resume(manifest)
        yield


def _remove_empty(folder: Path) -> None:
    """Remove a new run that failed before it wrote anything, as on a full disk."""
    written = {path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size}
    if written <= {MANIFEST, LOCK, CONSOLE}:
        shutil.rmtree(folder, ignore_errors=True)
