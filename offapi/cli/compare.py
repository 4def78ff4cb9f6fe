"""`offapi compare`: the roads to a model of one's
own, on one task, with what each takes and gives.
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
    from offapi.compare.config import Keys
    from offapi.compare.run import Found

RESULT = "compare.json"


@click.command(short_help="Run the roads the data allow, and tell which pays.")
@click.argument("file", type=click.Path(path_type=Path))
@backend_option()
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key of the file."
)
@click.option(
    "--dry-run", is_flag=True, help="Say how long, how much memory and how many kWh; write nothing."
)
@options
def command(
    output: Output, *, file: Path, backend: str | None, overrides: tuple[str, ...], dry_run: bool
) -> None:
    """Run the roads that the data allow (sft, distill, filtered_sft, grpo) with one student and one test set.

    Each road is an arm in a folder named by all it depends on. Stopped at any time, the same
    command goes on: arms that are done are not done again, nor are those of other comparisons.

    \b
    offapi compare compare.toml --dry-run
    offapi compare compare.toml --backend torch --set sft.epochs=3
    """
    from offapi.backend import default_backend, find
    from offapi.compare.config import load_keys

    keys = load_keys(file, overrides)
    name = backend or default_backend()
    find(name)
    output.result(expect(keys, name, output) if dry_run else run(keys, name, output))


def run(keys: Keys, backend: str, output: Output) -> dict[str, Any]:
    """The whole comparison, kept, shown, and as `--json` prints it."""
    from offapi.compare import table
    from offapi.compare.run import plan_comparison, run_comparison
    from offapi.files import atomic

    plan = plan_comparison(keys, backend)
    for recipe, why in plan.left_out.items():
        output.say(f"{recipe} is left out: {why}.")
    found: Found = run_comparison(plan, output)
    told = table.as_dict(found)
    folder = keys.out / keys.name
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_file(folder / RESULT, orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY))
    output.say()
    output.table(table.headers(found), table.table(found))
    for line in table.lines(found):
        output.say(line)
    output.say(f"Everything is in {folder / RESULT}; the arms are in {keys.out / 'arms'}.")
    return told


def expect(keys: Keys, backend: str, output: Output) -> dict[str, Any]:
    """What all of it would take, with nothing left behind."""
    from offapi.compare.effort import kwh
    from offapi.compare.run import forecast_arms, plan_comparison
    from offapi.text.display import duration

    with tempfile.TemporaryDirectory() as folder:
        plan = plan_comparison(keys, backend, Path(folder))
        found = forecast_arms(plan, output)
    rows: list[tuple[str, ...]] = []
    told: dict[str, Any] = {}
    for recipe, one in found.items():
        if one is None:
            rows.append((recipe, "done before", "", "", ""))
            told[recipe] = {"done": True}
            continue
        memory, energy = one.memory / 2**30, kwh(keys, one.seconds)
        size = f"{memory:.1f} of {one.total / 2**30:.0f} GiB"
        rows.append(
            (recipe, str(one.rows), f"at most {duration(one.seconds)}", size, f"{energy:.2g}")
        )
        told[recipe] = {
            "rows": one.rows,
            "seconds": one.seconds,
            "memory_bytes": one.memory,
            "kwh": energy,
        }
    for name, why in plan.left_out.items():
        output.say(f"{name} is left out: {why}.")
    output.table(
        ("road", "rows", "time, with scoring", "memory", f"kWh at {keys.watts:g} W (assumed)"), rows
    )
    total = sum(one.seconds for one in found.values() if one)
    output.say(
        f"Together at most {duration(total)}, {kwh(keys, total):.2g} kWh. Nothing was written."
    )
    return {
        "arms": told,
        "seconds": total,
        "kwh": kwh(keys, total),
        "watts": keys.watts,
        "left_out": plan.left_out,
    }
