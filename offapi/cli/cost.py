"""`offapi cost`: what an own model costs beside the
API, where they break even, and what that hangs on.
"""

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
    """A flag for every input, in the table's order."""
    for row in reversed(INPUTS):
        assumed = row.assumed or row.follows
        more = f"  [{'assumed' if row.assumed else 'else'}: {assumed}]" if assumed else ""
        told = (
            f"{row.help}{more}"
            if not row.unit.startswith("per")
            else f"{row.help} ({row.unit}){more}"
        )
        function = click.option(row.flag, row.key, metavar="RANGE", help=told)(function)
    return function


@click.command(short_help="Reckon own costs beside the API's, and where they meet.")
@click.option(
    "--from",
    "files",
    type=FILE,
    multiple=True,
    help="Inputs from a TOML file; the last one counts.",
)
@click.option(
    "--run", "run_folder", type=FILE, help="What a run tells, or a file that `eval --json` printed."
)
@click.option(
    "--measure",
    type=click.IntRange(1),
    metavar="N",
    help="Ask the run's model for N documents; time it.",
)
@click.option(
    "--example", type=FILE, help="Write an example of a --from file, and do nothing else."
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
    """Reckon what an own model costs beside the API: on a machine owned, bought and rented.

    RANGE is a number, or low:likely:high. Tells the break-even requests and month with their
    range, what weighs most, and when to stay on the API. Prices are yours, never fetched.

    \b
    offapi cost --example costs.toml
    offapi cost --from costs.toml --run runs/distill --measure 50
    offapi cost --from costs.toml --run eval.json
    offapi cost --from costs.toml --requests 20000:50000:80000 --escalated-share 0.1
    """
    if example is not None:
        _write_example(example, output)
        return
    if measure is not None and run_folder is None:
        raise click.UsageError("--measure has no effect without --run.")
    flags = Layer.of_flags({key: value for key, value in given.items() if value is not None})
    written = [Layer.of_file(path) for path in files]
    told = _of_run(run_folder, measure, output) if run_folder is not None else []
    known = resolve_inputs([*told[:1], *written, *told[1:], flags])

    from offapi.cost import text
    from offapi.cost.estimate import estimate

    found = estimate(known)
    for table in (text.input_table, text.cost_table, text.swing_table):
        output.table(*table(found))
        output.say()
    for line in text.lines(found):
        output.say(line)
    output.result(found.as_dict())


def _of_run(folder: Path, measure: int | None, output: Output) -> list[Layer]:
    """What the run tells, then what its model shows or
    showed when asked: that goes before a file's guess.
    """
    from offapi.cost import from_eval, from_run
    from offapi.cost.measure import measure_run
    from offapi.training.run import Run

    if folder.is_file() and measure is None:
        return [Layer({}, {}), from_eval.read(folder)]
    run = Run.open(folder)
    return [from_run.read(run), *([measure_run(run, measure, output)] if measure else [])]


def _write_example(path: Path, output: Output) -> None:
    from importlib.resources import files as resources

    if path.exists():
        raise ConfigError(
            "there is something already.", where=f"--example {path}", next_step="Name a new file."
        )
    path.write_bytes((resources("offapi.cost") / EXAMPLE).read_bytes())
    output.say(
        f"Wrote {path}: every figure in it is an assumption. Next: offapi cost --from {path}"
    )
    output.result({"example": str(path)})
