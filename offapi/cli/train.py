"""`offapi train`: run a recipe, which can be resumed at any point."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options

if TYPE_CHECKING:
    from offapi.ranks.ranked_backend import Crew


@click.command(short_help="Train a model with a recipe.")
@click.argument("recipe", type=click.Path(path_type=Path))
@backend_option()
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the recipe, such as lr=5e-4. May be given more than once.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume the run from its last checkpoint. Without it, an existing run of the same name is an error.",
)
@click.option(
    "--rollouts",
    type=click.Path(path_type=Path),
    help="For grpo: learn from existing answers with their scores (graded traces, or a run's rollouts"
    " folder) instead of sampling new ones.",
)
@click.option(
    "--allow",
    metavar="GATE",
    multiple=True,
    help="For grpo: continue although this gate, a check on the training itself, failed."
    " Its message names it. May be given"
    " more than once.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Read and check everything, and estimate time, memory and disk; train nothing and write nothing.",
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
    dry_run: bool,
) -> None:
    """Train a model with a recipe: sft, distill, filtered_sft or grpo.

    RECIPE is a TOML file that sets up one recipe; `offapi init` writes one for each. Its keys name the task, the data
    and the base model; relative paths are relative to the file. `offapi advise` and `offapi compare`
    help to choose a recipe.

    The command first prints an estimate of its time and memory, then starts. The result is the
    folder runs/NAME with an adapter (the trained weights) and, if the recipe has `val`, the accuracy
    on those documents. `offapi eval --adapter` measures it; its files have PEFT's format.

    Ctrl-C or a crash loses at most the steps since the last checkpoint. Unlike the other commands, train
    resumes only with --resume.

    Started by torchrun or mlx.launch, it computes on several ranks: see docs/ranks.md.

    \b
    Examples:
      offapi train my-task/distill.toml --dry-run
      offapi train my-task/distill.toml
      offapi train my-task/distill.toml --backend mlx --set lr=5e-4
      offapi train my-task/distill.toml --resume
    """
    from offapi.ranks.session import joined, launch_for, leading
    from offapi.training.recipe_run import bounds_of

    launch = launch_for(backend)
    written = _command(recipe, backend, overrides, rollouts, allow)
    overrides += (f"allow={orjson.dumps(allow).decode()}",) if allow else ()
    if rollouts:
        overrides += (f"rollouts={orjson.dumps(str(rollouts.absolute())).decode()}",)
    if dry_run:
        if resume:
            raise click.UsageError("--dry-run is for a run that has not begun: remove --resume.")
        begin = partial(_plan, output, recipe, overrides, written=written)
    else:
        begin = partial(_train, output, recipe, overrides, resume=resume, written=written)
    if launch is None:
        begin(backend)
        return
    with joined(launch, lambda: bounds_of(recipe, overrides)) as member:
        if launch.rank:
            member.follow()
            return
        with leading(member) as crew:
            begin(launch.backend, crew=crew)


def _train(
    output: Output,
    recipe: Path,
    overrides: tuple[str, ...],
    backend: str | None,
    *,
    resume: bool,
    written: str,
    crew: Crew | None = None,
) -> None:
    """Run the recipe, and show where it is and its report."""
    from offapi.training.recipe_run import run_recipe_file
    from offapi.training.run import CONSOLE

    run, report = run_recipe_file(
        recipe,
        overrides,
        backend,
        output,
        resume=resume,
        command=written,
        keep=output.kept_in,
        crew=crew,
    )
    with output.kept_in(run.path / CONSOLE):
        full = run.manifest["config"].get("full")
        result = f"Model: {run.path / 'model'}" if full else f"Adapter: {run.path / 'adapter'}"
        output.say(f"Run folder: {run.path}. {result}.")
        if report is not None:
            output.table(("field", "right, with 95% interval"), report.table())
            for line in report.forms.lines():
                output.say(line)
    output.result({"run": str(run.path), "report": report.as_dict() if report else None})


def _plan(
    output: Output,
    recipe: Path,
    overrides: tuple[str, ...],
    backend: str | None,
    *,
    written: str,
    crew: Crew | None = None,
) -> None:
    """Show what the run would do and take."""
    from offapi.backend import load
    from offapi.evaluation.dry_run import plan_run

    start = crew.load if crew else load
    plan = plan_run(recipe, overrides, backend, output, written, start)
    for line in plan.lines():
        output.say(line)
    output.result(plan.as_dict())


def _command(
    recipe: Path,
    backend: str | None,
    overrides: tuple[str, ...],
    rollouts: Path | None,
    allow: tuple[str, ...],
) -> str:
    """Return the command as it was written, without --resume."""
    words = ["offapi", "train", str(recipe)]
    words += ["--backend", backend] if backend else []
    for option, values in (("--set", overrides), ("--allow", allow)):
        for value in values:
            words += [option, value]
    words += ["--rollouts", str(rollouts)] if rollouts else []
    return shlex.join(words)
