"""`offapi cost`: your own model's cost, the API's cost, and their break-even."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from offapi.cli.output import Output, options
from offapi.cost.inputs import INPUTS, Layer, resolve_inputs
from offapi.errors import ConfigError

FILE = click.Path(path_type=Path)
EXAMPLE = "prices-2026-11.toml"


def inputs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for every input, in the table's order."""
    for row in reversed(INPUTS):
        default = row.assumed or row.follows
        suffix = f"  [{'assumed' if row.assumed else 'default'}: {default}]" if default else ""
        text = f"{row.help}{suffix}"
        function = click.option(row.flag, row.key, metavar="RANGE", help=text)(function)
    return function


@click.command(short_help="Compare your own model's cost with the API's; find break-even.")
@click.option(
    "--from",
    "files",
    type=FILE,
    multiple=True,
    help="TOML file with inputs; its keys are the options below. May be given more than once: later"
    " files override earlier ones, and options override files.",
)
@click.option(
    "--run",
    "run_folder",
    type=FILE,
    help="A run folder, or the JSON printed by `offapi eval --json`. Its measured times and token"
    " counts become inputs.",
)
@click.option(
    "--measure",
    type=click.IntRange(1),
    metavar="N",
    help="Run the model of --run on N of its evaluation documents, and measure its time, tokens and"
    " (if the machine has a meter) power.",
)
@click.option(
    "--example",
    type=FILE,
    help="Only write an example file for --from to this path, for you to fill in with your figures.",
)
@inputs
@options
def command(
    output: Output,
    *,
    files: tuple[Path, ...],
    run_folder: Path | None,
    measure: int | None,
    example: Path | None,
    **given: str | None,
) -> None:
    """Compare the monthly cost of your own model with the API's, and find break-even.

    Use it before you train, with estimates, and again after training, with --run. It compares three
    machines: one you own already, one you buy, one you rent. It reports the break-even in requests
    and in months, which inputs matter most, and when to stay on the API.

    RANGE is a number, as 50000 or 50k, or low:likely:high if you are not sure. [assumed: ...] is the value
    used if you give none; an input without it must be given or measured. Amounts are in dollars unless a file
    names another currency. Prices are yours and never fetched.

    \b
    Examples:
      offapi cost --example costs.toml
      offapi cost --from costs.toml --run runs/distill --measure 50
      offapi cost --from costs.toml --run eval.json
      offapi cost --from costs.toml --requests 20000:50000:80000
    """
    if example is not None:
        _write_example(example, output)
        return
    if measure is not None and run_folder is None:
        raise click.UsageError("--measure has no effect without --run.")
    flags = Layer.of_flags({key: value for key, value in given.items() if value is not None})
    from_files = [Layer.of_file(path) for path in files]
    from_run = _read_run(run_folder, measure, output) if run_folder is not None else []
    known = resolve_inputs([*from_run[:1], *from_files, *from_run[1:], flags])

    from offapi.cost import text
    from offapi.cost.estimate import estimate

    result = estimate(known)
    for line in text.lines(result):
        output.say(line)
    for table in (text.cost_table, text.swing_table, text.input_table):
        output.say()
        output.table(*table(result))
    output.result(result.as_dict())


def _read_run(folder: Path, measure: int | None, output: Output) -> list[Layer]:
    """Return what the run recorded, then what was measured, which overrides a file's guess."""
    from offapi.cost import from_eval, from_run
    from offapi.cost.measure import measure_run
    from offapi.training.run import Run

    if folder.is_file() and measure is None:
        return [Layer({}, {}), from_eval.read(folder)]
    run = Run.open(folder)
    recorded = from_run.read(run)
    return [recorded, measure_run(run, measure, output)] if measure else [recorded]


def _write_example(path: Path, output: Output) -> None:
    from importlib.resources import files as resources

    if path.exists():
        raise ConfigError(
            "the file already exists.", where=f"--example {path}", next_step="Name a new file."
        )
    path.write_bytes((resources("offapi.cost") / EXAMPLE).read_bytes())
    output.say(
        f"Wrote {path}. Every figure in it is an assumption: replace it by yours, then run"
        f" `offapi cost --from {path}`."
    )
    output.result({"example": str(path)})
