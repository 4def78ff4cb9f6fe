"""`offapi demo`: the whole pipeline on generated invoices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.backend_option import backend_option
from offapi.cli.output import Output, options

if TYPE_CHECKING:
    from offapi.demo.run import DemoOutcome


@click.command(short_help="Run the whole pipeline on generated invoices, in a few minutes.")
@backend_option()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder in which the run folder is created.",
)
@click.option(
    "--seed",
    metavar="N",
    default=0,
    show_default=True,
    help="Random seed for the documents and the training.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Also compare the recipes, estimate the cost and write a report of both (about 15 minutes"
    " more).",
)
@options
def command(output: Output, *, backend: str | None, out: Path, seed: int, full: bool) -> None:
    """Run the whole pipeline on generated invoices, in a few minutes.

    Use it to see that everything works on this machine, and what a result looks like. A teacher
    model labels the documents, the checks filter its labels, a small student learns from them, and
    both are scored on test documents. It needs no data, no network and no API key. Run the same
    command again to resume.

    \b
    Examples:
      offapi demo
      offapi demo --backend torch --seed 1 --full
    """
    from offapi.backend import default_backend
    from offapi.demo.run import Sizes, run_demo

    name = backend or default_backend()
    outcome = run_demo(name, out, Sizes(seed=seed), output)
    show(outcome, output)
    more = compare_recipes(outcome.run.absolute(), name, output) if full else {}
    output.result(outcome.as_dict() | more)


def compare_recipes(run: Path, backend: str, output: Output) -> dict[str, Any]:
    """Estimate the time of all recipes, run them, estimate the cost, and write one report."""
    from offapi.cli import compare
    from offapi.compare.config import load_keys
    from offapi.cost import text
    from offapi.demo import full

    keys = load_keys(full.write_recipe(run), ())
    compare.estimate(keys, backend, output)
    result = compare.run(keys, backend, output)
    for line in text.lines(full.estimate_cost(run)):
        output.say(line)
    output.say(f"Report: {full.write_report(run)}")
    return {"compare": result}


def show(outcome: DemoOutcome, output: Output) -> None:
    """Show the three arms next to each other, each field with its interval."""
    names = list(outcome.arms)
    tables = [outcome.arms[name].report.table() for name in names]
    rows = []
    for field in zip(*tables, strict=True):
        rows.append([field[0][0], *(cell for _, cell in field)])
    for key, title in (("prompt_tokens", "prompt tokens"), ("seconds", "seconds")):
        costs = [f"{outcome.arms[name].cost[key]:g}" for name in names]
        rows.append([f"{title} per document", *costs])
    output.say("")
    output.table(["right, with 95% interval", *names], rows)
    output.say(f"\nRun folder: {outcome.run}. Adapter: {outcome.run / 'adapter'}.")
    output.say(f"Report: {outcome.run / 'report.html'}")
