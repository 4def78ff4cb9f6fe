"""Find a recipe and run it in a folder, from the beginning or from its last checkpoint.

Left out: flags and printing, which are the commands'.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from offapi.backend import default_backend, require_installed, resolve_dtype
from offapi.chat.chat import IN_FRONT, Chat
from offapi.config import load as configs
from offapi.constrain import Constraints
from offapi.data import documents
from offapi.errors import ConfigError, DataError, RunError, nearest
from offapi.files.capture_file import CaptureFile, pinned
from offapi.models import store
from offapi.progress import Progress
from offapi.ranks.ranked_backend import Crew
from offapi.task import load_task
from offapi.text.display import plural
from offapi.training.job import Job
from offapi.training.manifest import as_begun, describe_run
from offapi.training.prompt_settings import DAY, day_of, on_day
from offapi.training.run import CONSOLE, LOCK, MANIFEST, PLAN, Run, check_name

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
    backend_name: str | None,
    progress: Progress,
    *,
    resume: bool,
    command: str,
    keep: Keep = nullcontext,
    crew: Crew | None = None,
) -> tuple[Run, Any]:
    """Run the recipe file at `path`, or resume its run; return the run and the recipe's report.

    Everything is read and checked before the run's folder is made. Without a `backend_name`, a run
    is resumed on the one it began with. `command` is what the user wrote, without --resume; `keep`
    returns the context in which what is said is kept in a file. `crew` are the ranks, if there are
    several.
    """
    recipe = find_recipe(path)
    config = configs.load(path, recipe.Config, overrides)
    check_free(config, command, resume=resume)
    began = Run.open(config.out / config.name).manifest if resume else {}
    config, day = with_rows_of_now(config, began), day_of(began)
    backend = backend_name or began.get("backend") or default_backend()
    require_installed(backend)
    try:
        inputs = read_inputs(recipe, on_day(config, day), progress)
    except KeyboardInterrupt:
        again = f"{command} --resume" if resume else command
        raise KeyboardInterrupt(f"Nothing was written. Run `{again}` again.") from None
    asked, config = config, with_dtype(config, backend, began)
    manifest = describe_run(config)
    if resume:
        folder = Run.open(config.out / config.name)
        manifest = as_begun(manifest, began, config)
    else:
        folder = Run.create(config.out, config.name, {**manifest, "backend": backend, DAY: day})
    job = Job(
        config=on_day(config, day),
        inputs=inputs,
        backend_name=backend,
        folder=folder,
        progress=progress,
        resume=resume,
    )
    if crew:
        job = replace(job, load=crew.load)
    ranks = {"ranks": crew.member.ranks.size} if crew else {}
    try:
        with folder.lock(backend=backend, **ranks), keep(folder.path / CONSOLE):
            say_start(config, backend, began, progress)
            if crew:
                progress.say(f"Computing on {plural(crew.member.ranks.size, 'rank')}.")
            if asked.dtype == "auto":
                progress.say(f"Computing in {config.dtype}{_why(config.dtype, began)}.")
            if resume:
                folder.resume(manifest)
            report = recipe.run(job)
            if report is None:
                progress.say(no_score(config))
            return folder, report
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Resume with `{command} --resume`.") from None
    except Exception:
        if not resume:
            _remove_empty(folder.path)
        raise


def bounds_of(path: Path, overrides: Sequence[str]) -> Constraints:
    """Return what bounds the completions of the recipe file at `path`, as its `prepare` does."""
    config: Any = configs.load(path, find_recipe(path).Config, overrides)
    chat = Chat.load(store.get(config.model).path)
    return Constraints.of(load_task(config.task), chat, config.constrain)


def with_rows_of_now(config: Any, began: Mapping[str, Any]) -> Any:
    """Return `config` reading a server's kept answers up to the last one that there is now.

    A resumed run reads those that it began with, though others have come.
    """
    before = began.get("config", {})
    named = {name: pinned(path, before.get(name)) for name, path in config.reads().items()}
    changed = {name: path for name, path in named.items() if path != config.reads()[name]}
    return replace(config, **changed)


def with_dtype(config: Any, backend: str, began: Mapping[str, Any]) -> Any:
    """Return `config` with the dtype that is computed in; a resumed run keeps its own."""
    if config.dtype != "auto":
        return config
    known = began.get("config", {}).get("dtype") or ("float32" if config.full else None)
    return replace(config, dtype=known or resolve_dtype("auto", backend, config.device))


def _why(dtype: str, began: Mapping[str, Any]) -> str:
    if began:
        return ", as the run began"
    where = "on a GPU" if dtype == "bfloat16" else "on the CPU"
    return f" {where}; `dtype` in the recipe sets another"


def read_inputs(recipe: ModuleType, config: Any, progress: Progress) -> Any:
    """Read and check all that a run needs, and say what is left out; nothing is written."""
    for name in DATA:
        _require_readable(getattr(config, name, None))
    inputs = recipe.prepare(config, progress)
    documents.say_left_out(progress, *(getattr(config, name, None) for name in DATA))
    if inputs.chat.no_system:
        progress.say(IN_FRONT)
    if inputs.task.is_agent and (history := inputs.chat.say_history()):
        progress.say(history)
    return inputs


def check_free(config: Any, command: str, *, resume: bool) -> None:
    """Raise RunError for a name that no run can have, or that another run has already."""
    check_name(config.name)
    folder = config.out / config.name
    if resume or not folder.exists():
        return
    name = free_name(folder)
    new = f"{command} --set {shlex.quote(f'name={name}')}"
    raise RunError(
        "a run of that name exists already.",
        where=str(folder),
        next_step=f"Resume it with `{command} --resume`, or begin another with `{new}`.",
    )


def free_name(folder: Path) -> str:
    """Return the next name that is free next to `folder`: distill-2 after distill."""
    base, dash, number = folder.name.rpartition("-")
    stem, first = (base, int(number) + 1) if dash and number.isdecimal() else (folder.name, 2)
    names = (f"{stem}-{i}" for i in count(first))
    return next(name for name in names if not folder.with_name(name).exists())


def say_start(config: Any, backend: str, began: Mapping[str, Any], progress: Progress) -> None:
    """Say why there will be no score, and that a run changes its backend."""
    if config.val is None and config.recipe != "grpo":
        progress.say(no_score(config))
    if config.full and config.lora != type(config.lora)():
        progress.say("Every weight is trained (`full`): what `lora` says is not used.")
    if began.get("backend", backend) != backend:
        progress.say(
            f"This run began on {began['backend']} and continues on {backend}: its result is that"
            " of neither alone. The manifest names the backend of each attempt."
        )


def no_score(config: Any) -> str:
    """Return why a run has no accuracy, and how to get one."""
    why = (
        "Not all held-out documents have gold"
        if config.recipe == "grpo"
        else "The recipe names no `val`"
    )
    result = config.out / config.name / ("model" if config.full else "adapter")
    option = "--model" if config.full else "--adapter"
    return (
        f"{why}, so the run ends without an accuracy. Set `val` to documents with gold that are not"
        f" learned, or score later with `offapi eval {option} {result}`."
    )


def _require_readable(path: Path | None) -> None:
    """Raise DataError for a missing file, before a library is imported that takes seconds."""
    if path is not None and not path.exists() and not CaptureFile.find(path):
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
    if written <= {MANIFEST, LOCK, CONSOLE, PLAN}:
        shutil.rmtree(folder, ignore_errors=True)
