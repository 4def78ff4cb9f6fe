"""`offapi demo`: the main job in small, from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options

if TYPE_CHECKING:
    from offapi.demo.run import DemoOutcome


@click.command(short_help="Distil a small model on generated invoices, from end to end.")
@backend_option()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Where the run goes.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Of the generated documents and of training."
)
@click.option(
    "--full",
    is_flag=True,
    help="Then compare the roads, reckon the cost, and report (about 15 minutes more).",
)
@options
def command(output: Output, *, backend: str | None, out: Path, seed: int, full: bool) -> None:
    """Distil a small model on generated invoices: label, grade, train, compare. No network, no key.

    Interrupted, it goes on where it stopped when called again.

    \b
    offapi demo --backend torch
    """
    from offapi.backend import default_backend
    from offapi.demo.run import Sizes, run_demo

    name = backend or default_backend()
    outcome = run_demo(name, out, Sizes(seed=seed), output)
    show(outcome, output)
    more = compare_roads(outcome.run.absolute(), name, output) if full else {}
    output.result(outcome.as_dict() | more)


def compare_roads(run: Path, backend: str, output: Output) -> dict[str, Any]:
    """The roads, said to take so long before they are
    taken; then their costs, and one report of it all.
    """
    from offapi.cli import compare
    from offapi.compare.config import load_keys
    from offapi.cost import text
    from offapi.demo import full

    keys = load_keys(full.write_recipe(run), ())
    compare.expect(keys, backend, output)
    told = compare.run(keys, backend, output)
    for line in text.lines(full.estimate_cost(run)):
        output.say(line)
    output.say(f"To look at: {full.write_report(run)}")
    return {"compare": told}


def show(outcome: DemoOutcome, output: Output) -> None:
    """The three arms side by side, each field with its interval."""
    names = list(outcome.arms)
    tables = [outcome.arms[name].report.table() for name in names]
    rows = [[field[0][0], *(cell for _, cell in field)] for field in zip(*tables, strict=True)]
    for unit in ("prompt_tokens", "seconds"):
        rows.append(
            [f"{unit} a document", *(f"{outcome.arms[name].cost[unit]:g}" for name in names)]
        )
    output.say("")
    output.table(["right, with 95% interval", *names], rows)
    output.say(f"\nEverything is in {outcome.run}; the adapter is {outcome.run / 'adapter'}.")
    output.say(f"To look at: {outcome.run / 'report.html'}")
