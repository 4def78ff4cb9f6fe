"""`offapi compare`: every recipe on one task, with its cost and its result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options

if TYPE_CHECKING:
    from offapi.compare.config import Keys
    from offapi.compare.run import Found

RESULT = "compare.json"


@click.command(short_help="Train with every recipe your data allows and compare the results.")
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
    "--dry-run",
    is_flag=True,
    help="Only estimate time, memory and energy (kWh); train nothing and write nothing.",
)
@options
def command(
    output: Output, *, file: Path, backend: str | None, overrides: tuple[str, ...], dry_run: bool
) -> None:
    """Train with every recipe your data allow (sft, distill, filtered_sft, grpo) and compare them.

    Use it when you do not know which recipe suits your task. All recipes start from the same model
    and are scored on the same test set. FILE is a compare.toml, as `offapi init` writes it: it names
    the task, the documents and the test set. Its key `recipes` limits which ones are run.

    Each trained model is an arm, in a folder named after everything it depends on. Run the same
    command again to resume: an arm that is done is reused, also by other comparisons.

    \b
    Examples:
      offapi compare compare.toml --dry-run
      offapi compare compare.toml --backend torch --set sft.epochs=3
    """
    from offapi.backend import default_backend, require_installed, resolve_dtype
    from offapi.compare.config import load_keys
    from offapi.data import documents

    keys = load_keys(file, overrides)
    documents.say_left_out(output, keys.documents, keys.traces, keys.test, keys.val)
    name = backend or default_backend()
    require_installed(name)
    keys = replace(keys, dtype=resolve_dtype(keys.dtype, name, keys.device))
    output.result(estimate(keys, name, output) if dry_run else run(keys, name, output))


def run(keys: Keys, backend: str, output: Output) -> dict[str, Any]:
    """Run the comparison, keep it, show it, and return the object that `--json` prints."""
    from offapi.compare import table
    from offapi.compare.run import plan_comparison, run_comparison
    from offapi.files import atomic

    plan = plan_comparison(keys, backend)
    for recipe, why in plan.left_out.items():
        output.say(f"{recipe} is left out: {why}.")
    comparison: Found = run_comparison(plan, output)
    result = table.as_dict(comparison)
    folder = keys.out / keys.name
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_file(folder / RESULT, orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY))
    output.say()
    output.table(table.headers(comparison), table.table(comparison))
    for line in table.lines(comparison):
        output.say(line)
    output.say(f"Result: {folder / RESULT}. The arms are in {keys.out / 'arms'}.")
    return result


def estimate(keys: Keys, backend: str, output: Output) -> dict[str, Any]:
    """Show and return the time, memory and energy of all arms; leave nothing on disk."""
    from offapi.compare.data import dry_run_folder
    from offapi.compare.effort import kwh
    from offapi.compare.run import forecast_arms, plan_comparison
    from offapi.compare.table import rows_left_out
    from offapi.text.display import duration

    with dry_run_folder(keys.out) as folder:
        plan = plan_comparison(keys, backend, folder)
        forecasts = forecast_arms(plan, output)
    rows: list[tuple[str, ...]] = []
    arms: dict[str, Any] = {}
    for recipe, forecast in forecasts.items():
        if forecast is None:
            rows.append((recipe, "already done", "", "", ""))
            arms[recipe] = {"done": True}
            continue
        memory, energy = forecast.memory / 2**30, kwh(keys, forecast.seconds)
        size = f"{memory:.1f} of {forecast.total / 2**30:.0f} GiB"
        time = f"at most {duration(forecast.seconds)}"
        rows.append((recipe, str(forecast.rows), time, size, f"{energy:.2g}"))
        arms[recipe] = {
            "rows": forecast.rows,
            "seconds": forecast.seconds,
            "memory_bytes": forecast.memory,
            "kwh": energy,
        }
    for name, why in plan.left_out.items():
        output.say(f"{name} is left out: {why}.")
    output.table(
        ("recipe", "rows", "time, with scoring", "memory", f"kWh at {keys.watts:g} W (assumed)"),
        rows,
    )
    for line in rows_left_out(plan.material):
        output.say(line)
    total = sum(forecast.seconds for forecast in forecasts.values() if forecast)
    output.say(
        f"Together at most {duration(total)}, {kwh(keys, total):.2g} kWh. Nothing was written."
    )
    return {
        "arms": arms,
        "seconds": total,
        "kwh": kwh(keys, total),
        "watts": keys.watts,
        "left_out": plan.left_out,
    }
