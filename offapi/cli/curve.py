"""`offapi curve`: how accuracy grows with the training rows, and whether more would help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options
from offapi.text.display import plural

if TYPE_CHECKING:
    from offapi.compare.config import Keys, RecipeName


def _numbers(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not of the form 25,50,100.") from None


@click.command(short_help="Estimate how accuracy grows with more training examples.")
@click.argument("file", type=click.Path(path_type=Path))
@backend_option()
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of FILE, such as sft.epochs=3. May be given more than once.",
)
@click.option(
    "--recipe",
    "--road",
    "recipe",
    type=click.Choice(["sft", "distill", "filtered_sft"]),
    default="sft",
    show_default=True,
    help="Recipe to train with at each size.",
)
@click.option(
    "--sizes",
    metavar="N,N,N",
    callback=_numbers,
    help="Numbers of training rows to try, at least three of them."
    "  [default: 25,50,100 ... and all rows]",
)
@click.option(
    "--draws",
    type=click.IntRange(1),
    metavar="N",
    default=3,
    show_default=True,
    help="Random samples of each size; one model is trained on each. More samples give a more certain curve.",
)
@click.option(
    "--want",
    type=click.FloatRange(0, 1),
    metavar="ACCURACY",
    help="Estimate how many examples reach this accuracy: the fraction of test documents with every"
    " field right. Without it, only the curve is fitted.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only estimate time and energy (kWh); train nothing and write nothing.",
)
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
    """Estimate how accuracy grows with more training examples.

    Use it before you pay for more labels. It trains on 25, 50, 100 ... rows, a few random samples of
    each size, scores every model on the test set and fits a curve. It reports what twice the rows
    would bring and, with --want, how many rows reach that accuracy, or that no number of them will. FILE is the file of `offapi compare`. Run the same command again to resume.

    \b
    Examples:
      offapi curve compare.toml --want 0.9
      offapi curve compare.toml --recipe filtered_sft --draws 5 --dry-run
    """
    from offapi.backend import default_backend, require_installed, resolve_dtype
    from offapi.compare.config import load_keys
    from offapi.data import documents

    keys = load_keys(file, overrides)
    documents.say_left_out(output, keys.documents, keys.traces, keys.test, keys.val)
    name = backend or default_backend()
    require_installed(name)
    keys = replace(keys, dtype=resolve_dtype(keys.dtype, name, keys.device))
    request = (keys, recipe, name, sizes, draws)
    output.result(_estimate(*request, output) if dry_run else _run(*request, want, output))


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
    points = run.train_points(plan, output)
    curve = run.fit_points(points)
    needed = rows_needed(curve, want) if want is not None else None
    result = run.curve_as_dict(plan, points, curve, needed)
    folder = keys.out / keys.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"curve-{recipe}.json"
    atomic.write_file(path, orjson.dumps(result))
    output.say()
    output.table(
        ("rows", "draws", "right, %", "± over draws", "fitted, with 95% interval"),
        run.curve_table(points, curve),
    )
    for line in run.curve_lines(plan, curve, needed):
        output.say(line)
    output.say(f"Result: {path}. The arms are in {keys.out / 'arms'}.")
    return result


def _estimate(
    keys: Keys, recipe: RecipeName, backend: str, sizes: tuple[int, ...], draws: int, output: Output
) -> dict[str, Any]:
    """Show and return the time and energy of all points; leave nothing on disk."""
    from offapi.compare.curve import run
    from offapi.compare.data import dry_run_folder
    from offapi.compare.effort import kwh
    from offapi.text.display import duration

    with dry_run_folder(keys.out) as folder:
        plan = run.plan_curve(keys, recipe, backend, sizes, draws, folder)
        seconds = run.forecast_seconds(plan, output)
    energy = kwh(keys, seconds)
    output.say(
        f"{plural(len(plan.points), 'student')}: at most {duration(seconds)}, {energy:.2g} kWh at"
        f" {keys.watts:g} W (assumed). Nothing was written."
    )
    return {"points": len(plan.points), "seconds": seconds, "kwh": energy, "watts": keys.watts}
