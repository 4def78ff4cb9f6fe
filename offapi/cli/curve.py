"""`offapi curve`: how accuracy grows with the rows
learned from, and whether more of them would do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options

if TYPE_CHECKING:
    from offapi.compare.config import Keys, RecipeName


def _numbers(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not of the form 25,50,100.") from None


@click.command(short_help="Tell how accuracy grows with examples, and whether more would do.")
@click.argument("file", type=click.Path(path_type=Path))
@backend_option()
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key of the file."
)
@click.option(
    "--recipe",
    "--road",
    "recipe",
    type=click.Choice(["sft", "distill", "filtered_sft"]),
    default="sft",
    show_default=True,
)
@click.option(
    "--sizes",
    metavar="N,N,N",
    callback=_numbers,
    help="Rows to draw.  [default: 25,50,100 ... and all]",
)
@click.option(
    "--draws", type=click.IntRange(1), default=3, show_default=True, help="Draws of each size."
)
@click.option(
    "--want",
    type=click.FloatRange(0, 1),
    help="How many more for this share of documents all right?",
)
@click.option("--dry-run", is_flag=True, help="Say how long and how many kWh; write nothing.")
@options
def command(
    output: Output,
    *,
    file: Path,
    backend: str | None,
    overrides: tuple[str, ...],
    recipe: RecipeName,
    sizes: tuple[int, ...],
    draws: int,
    want: float | None,
    dry_run: bool,
) -> None:
    """Train on 25, 50, 100 ... rows, a few draws each, and fit a curve. FILE is that of `offapi compare`.

    Says what twice the rows would bring, how many more the accuracy --want takes, or that
    more data of this kind will not get you there. Stopped at any time, the same command goes on.

    \b
    offapi curve compare.toml --want 0.9
    offapi curve compare.toml --recipe filtered_sft --draws 5 --dry-run
    """
    from offapi.backend import default_backend, find
    from offapi.compare.config import load_keys

    keys = load_keys(file, overrides)
    name = backend or default_backend()
    find(name)
    asked = (keys, recipe, name, sizes, draws)
    output.result(_expect(*asked, output) if dry_run else _run(*asked, want, output))


def _run(
    keys: Keys,
    recipe: RecipeName,
    backend: str,
    sizes: tuple[int, ...],
    draws: int,
    want: float | None,
    output: Output,
) -> dict[str, Any]:
    from offapi.compare.curve import run
    from offapi.compare.curve.rows_needed import rows_needed
    from offapi.files import atomic

    plan = run.plan_curve(keys, recipe, backend, sizes, draws)
    reached = run.train_points(plan, output)
    found = run.fit_points(reached)
    answered = rows_needed(found, want) if want is not None else None
    told = run.curve_as_dict(plan, reached, found, answered)
    folder = keys.out / keys.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"curve-{recipe}.json"
    atomic.write_file(path, orjson.dumps(told))
    output.say()
    output.table(
        ("rows", "draws", "right, %", "± over draws", "fitted, with 95% interval"),
        run.curve_table(reached, found),
    )
    for line in run.curve_lines(plan, found, answered):
        output.say(line)
    output.say(f"Everything is in {path}; the arms are in {keys.out / 'arms'}.")
    return told


def _expect(
    keys: Keys, recipe: RecipeName, backend: str, sizes: tuple[int, ...], draws: int, output: Output
) -> dict[str, Any]:
    """What all points would take, with nothing left behind."""
    from offapi.compare.curve import run
    from offapi.compare.effort import kwh
    from offapi.text.display import duration

    with tempfile.TemporaryDirectory() as folder:
        plan = run.plan_curve(keys, recipe, backend, sizes, draws, Path(folder))
        seconds = run.forecast_seconds(plan, output)
    energy = kwh(keys, seconds)
    output.say(
        f"{len(plan.points)} students: at most {duration(seconds)}, {energy:.2g} kWh at"
        f" {keys.watts:g} W (assumed). Nothing was written."
    )
    return {"points": len(plan.points), "seconds": seconds, "kwh": energy, "watts": keys.watts}
