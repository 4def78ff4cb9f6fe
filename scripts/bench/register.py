"""Measure a list of names: seconds and memory to index it, and milliseconds a document.

Names are made up of the words of a real list; the documents are real ones.

    \b
    python scripts/bench/register.py vendors.txt held.jsonl --names 1000000
"""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path

import click

from offapi.constrain.register import Register
from offapi.data.rows import read_documents


@click.command(help=__doc__)
@click.argument("words", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--names", "count", default=1_000_000, show_default=True, help="Names to make up.")
@click.option("--limit", default=30, show_default=True, help="Documents to search for names.")
def main(words: Path, data: Path, count: int, limit: int) -> None:
    """Make names up, index them, and look for them in documents."""
    chance, names = random.Random(0), dict[str, None]()
    known = sorted(set(words.read_text("utf-8").split()))
    while len(names) < count:
        chosen = chance.choices(known, k=chance.randint(2, 5))
        names[" ".join([*chosen, str(chance.randint(1, 9999))])] = None
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    register = Register.of(tuple(names))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    documents = [document.text for document in read_documents(data)[:limit]]
    started = time.perf_counter()
    found = [len(register.candidates(document)) for document in documents]
    each = (time.perf_counter() - started) / len(documents)
    click.echo(
        f"{count:,} names: {seconds:.1f} s to index, {peak / 1024:.0f} MB more at the peak;"
        f" {1000 * each:.1f} ms a document, {sum(found) / len(found):.1f} candidates"
    )


if __name__ == "__main__":
    main()
